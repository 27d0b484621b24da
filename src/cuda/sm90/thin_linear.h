#pragma once

#include <cuda_runtime_api.h>

#include "cuda/cuda_device.h"
#include "params.h"

/// Linears of a few dozen rows on Hopper GPUs, whose weights are read as fast as memory gives them
/// (docs/kernels/feature_selection.md).
namespace chipmunk::cuda::sm90 {

/// bf16; from 2 to 64 rows of all batches, which follow each other; depth a multiple of 64; rows that start at 16
/// bytes; no activation, gate, residual or heads.
bool takes_thin_linear(const DeviceProperties& device, const LinearParams& params);

/// Computes a linear that takes_thin_linear accepts, right behind kernels of the same stream that write its x, or
/// behind another such linear. The last of them lets dependents begin only once everything before it is complete, and
/// writes neither weight nor bias: they are read before that kernel ends.
void launch_thin_linear(cudaStream_t stream, const LinearParams& params);

}  // namespace chipmunk::cuda::sm90
