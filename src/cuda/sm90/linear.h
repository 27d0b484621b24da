#pragma once

#include <cuda_runtime_api.h>

#include "cuda/cuda_device.h"
#include "params.h"

/// Linears with their epilogues in one kernel, on Hopper GPUs (docs/kernels/linear.md).
namespace chipmunk::cuda::sm90 {

/// Whether one launch of the kernel computes all of them: bf16, the same depth, a multiple of 64, and the same kind of
/// epilogue; columns a multiple of 8; rows that start at 16 bytes; heads of 128.
bool takes_linears(const DeviceProperties& device, const LinearParams* problems, int count);

/// Whether the kernel takes them and is faster than cuBLASLt with kernels for what it does not fuse: for gates,
/// residuals and heads, where little of the multiprocessors' time is lost to rounding up.
bool prefers_own_linear(const DeviceProperties& device, const LinearParams* problems, int count);

/// Computes linears that takes_linears accepts, at most two, in one launch.
void launch_linears(cudaStream_t stream, const DeviceProperties& device, const LinearParams* problems, int count);

}  // namespace chipmunk::cuda::sm90
