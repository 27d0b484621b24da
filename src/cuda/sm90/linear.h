#pragma once

#include <cuda_runtime_api.h>

#include "cuda/cuda_device.h"
#include "params.h"

/// Linears with their epilogues in one kernel, on Hopper GPUs (docs/kernels/linear.md).
namespace chipmunk::cuda::sm90 {

/// Whether one launch of the kernel computes all of them (at most two) faster than cuBLASLt with kernels for what it
/// does not fuse: all with heads of 128, or all with gates or residuals; bf16, the same depth, a multiple of 64;
/// columns a multiple of 8; rows that start at 16 bytes; and little of the multiprocessors' time lost to rounding up.
bool prefers_own_linear(const DeviceProperties& device, const LinearParams* problems, int count);

/// Computes linears that prefers_own_linear accepts in one launch.
void launch_linears(cudaStream_t stream, const DeviceProperties& device, const LinearParams* problems, int count);

}  // namespace chipmunk::cuda::sm90
