#pragma once

#include <cuda_runtime_api.h>

#include "cuda/cuda_device.h"
#include "params.h"

/// The sparse MLP on Hopper GPUs (docs/kernels/column_mlp.md).
namespace chipmunk::cuda::sm90 {

/// Tokens that share a list of features.
constexpr int64_t kMlpBlock = 128;

/// Whether the kernels take a problem, or two as one: bf16, or a first weight in f8_e4m3 with scales; blocks of
/// kMlpBlock tokens; channels a multiple of 64, with f8_e4m3 of 128; output channels of 256; rows that start at 16
/// bytes. Two are of one sample each and of the same sizes but for their rows; the second one's tensors of tokens go on
/// where those of the first, a multiple of 8 rows, end.
bool takes(const DeviceProperties& device, const ColumnMlpParams* problems, int count);

/// Bytes of scratch memory that launch_column_mlp wants: enough for some of the blocks at a time, and for x in f8_e4m3.
int64_t column_mlp_workspace_bytes(const ColumnMlpParams* problems, int count);
void launch_column_mlp(cudaStream_t stream, const DeviceProperties& device, const ColumnMlpParams* problems, int count,
                       void* workspace);

}  // namespace chipmunk::cuda::sm90
