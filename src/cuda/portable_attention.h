#pragma once

#include <cuda_runtime_api.h>

#include "params.h"

/// Attention with the tensor core instructions of compute capability 8.0: for GPUs, head dims and layouts that have no
/// kernel of their own.
namespace chipmunk::cuda {

/// The largest head dim of the kernels below.
constexpr int64_t kMaxPortableHeadDim = 128;

/// Dense attention; writes out and lse, not column_sums.
void launch_portable_attention(cudaStream_t stream, const AttentionParams& params);
/// The column sums of params.
void launch_column_sums(cudaStream_t stream, const AttentionParams& params);
void launch_portable_column_attention(cudaStream_t stream, const ColumnAttentionParams& params);

/// Softmax of rows of scores, for head dims beyond kMaxPortableHeadDim.
struct ScoreSoftmax {
  const float* scores;  // [rows, M], row stride `stride`
  void* probabilities;  // bf16 [rows, M], row stride `stride`
  float* lse;           // [rows] or null
  int64_t rows, first_row, keys, stride;
  const float* relative_bias;  // of the head or null; entry j - i + query_tokens - 1
  const int32_t* key_length;   // of the batch or null
  int64_t query_tokens;
  float scale;
  bool causal;
};
void launch_score_softmax(cudaStream_t stream, const ScoreSoftmax& softmax);

}  // namespace chipmunk::cuda
