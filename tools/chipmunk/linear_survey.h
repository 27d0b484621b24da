#pragma once

#include <functional>

#include "linear_shape.h"
#include "random_models.h"

namespace chipmunk::cli {

/// Milliseconds of one linear, run several times with nothing else in between.
struct LinearTimes {
  double ours_ms = 0.0;  ///< with all of its epilogue; in fp8 with the quantisation of its input
  double cublas_ms =
      0.0;  ///< the fastest algorithm of cuBLASLt, always in bf16, without gate and residual, which it has not
};

/// What queues x w^T + bias by the fastest of cuBLASLt's algorithms, with the activation where it fuses that one; see
/// fastest_cublas_linear. x: [1, rows, K], out: [1, rows, N], dense, in bf16 as the layer. Blocks; the
/// context outlives the result.
std::function<void()> fastest_linear(const Context& context, const Tensor& x, const Linear& layer,
                                     Activation activation, const Tensor& out);

/// Medians of short runs in turns, on a GPU. Blocks.
LinearTimes time_linear(RandomTensors& random, const LinearShape& shape);

}  // namespace chipmunk::cli
