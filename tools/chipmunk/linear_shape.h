#pragma once

#include <cstdint>

#include "params.h"

namespace chipmunk::cli {

/// What a linear's speed depends on: M x N x K, and what follows the matmul besides the bias.
struct LinearShape {
  int64_t rows = 0;
  int64_t second_rows = 0;  ///< of a second linear in the same call, with as many features; 0: there is none
  int64_t out_features = 0, in_features = 0;
  Activation activation = Activation::kNone;
  bool residual = false, gated = false, addend = false;
  int64_t heads = 0;  ///< of q, and of k, among the output's columns, which are normed and rotated
  bool fp8 = false;   ///< weights in e4m3 with a scale a row

  bool operator==(const LinearShape&) const = default;
};

/// For tables: "norm, rotation", "gated residual", "gated residual, addend", "residual", "activation" or "".
inline const char* epilogue_name(const LinearShape& shape) {
  if (shape.heads > 0) return "norm, rotation";
  if (shape.addend) return "gated residual, addend";
  if (shape.gated) return "gated residual";
  if (shape.residual) return "residual";
  return shape.activation != Activation::kNone ? "activation" : "";
}

}  // namespace chipmunk::cli
