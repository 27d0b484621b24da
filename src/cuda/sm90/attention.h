#pragma once

#include <cuda_runtime_api.h>

#include "cuda/cuda_device.h"
#include "params.h"

/// Attention kernels for Hopper GPUs. docs/kernels/ has a page for each.
namespace chipmunk::cuda::sm90 {

/// Query rows that read the same keys in column attention.
constexpr int64_t kColumnGroup = 192;

/// Whether the dense kernel takes the problem: head dim 64 or 128, nothing masked but the end of the keys, rows that
/// start at 16 bytes.
bool takes(const DeviceProperties& device, const AttentionParams& params);
/// Whether it computes the column sums of params, too: those of groups of kColumnGroup rows. Each row's column_lse is
/// read before its lse is written, so that they may be one buffer.
bool computes_column_sums(const AttentionParams& params);
/// Bytes of workspace that launch_dense_attention wants, for its kernels alone.
int64_t dense_attention_workspace_bytes(const DeviceProperties& device, const AttentionParams& params);
/// Writes out and lse, and column_sums where it computes them. workspace: null where it wants none.
void launch_dense_attention(cudaStream_t stream, const DeviceProperties& device, const AttentionParams& params,
                            void* workspace);

/// The same for groups of kColumnGroup rows.
bool takes(const DeviceProperties& device, const ColumnAttentionParams& params);
void launch_column_attention(cudaStream_t stream, const DeviceProperties& device, const ColumnAttentionParams& params);

}  // namespace chipmunk::cuda::sm90
