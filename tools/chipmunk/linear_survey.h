#pragma once

#include "linear_shape.h"
#include "random_models.h"

namespace chipmunk::cli {

/// Milliseconds of one linear in bf16, run several times with nothing else in between.
struct LinearTimes {
  double ours_ms = 0.0;    ///< with all of its epilogue
  double cublas_ms = 0.0;  ///< the fastest algorithm of cuBLASLt, without gate and residual, which it has not
};

/// Medians of short runs in turns, on a GPU. Blocks.
LinearTimes time_linear(RandomTensors& random, const LinearShape& shape);

}  // namespace chipmunk::cli
