#pragma once

#include <cstdint>

#include "params.h"

namespace chipmunk::cli {

/// What a linear's speed depends on: M x N x K, and what follows the matmul besides the bias.
struct LinearShape {
  int64_t rows = 0, out_features = 0, in_features = 0;
  Activation activation = Activation::kNone;
  bool residual = false, gated = false;

  bool operator==(const LinearShape&) const = default;
};

/// For tables: "gated residual", "residual", "activation" or "".
inline const char* epilogue_name(const LinearShape& shape) {
  if (shape.gated) return "gated residual";
  if (shape.residual) return "residual";
  return shape.activation != Activation::kNone ? "activation" : "";
}

}  // namespace chipmunk::cli
