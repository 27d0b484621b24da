#pragma once

#include <cstdint>

#include "params.h"
#include "random_models.h"

namespace chipmunk::cli {

/// A linear of bf16 weights and activations, M x N x K.
struct LinearShape {
  int64_t rows = 0, out_features = 0, in_features = 0;
  Activation activation = Activation::kNone;
  bool residual = false, gated = false;
};

/// Milliseconds of one linear, run again and again with nothing else in between.
struct LinearTimes {
  double ours_ms = 0.0;    ///< with all of its epilogue
  double cublas_ms = 0.0;  ///< the fastest algorithm of cuBLASLt, without gate and residual, which it has not
};

/// Both in turn on a GPU, medians. Blocks.
LinearTimes time_linear(RandomTensors& random, const LinearShape& shape);

}  // namespace chipmunk::cli
