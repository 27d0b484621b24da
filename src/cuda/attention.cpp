#include "cuda/sm90/attention.h"

#include <algorithm>
#include <string>

#include "chipmunk/error.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/matmul.h"
#include "cuda/portable_attention.h"

namespace chipmunk::cuda {
namespace {

/// Bytes of scores that the head dims without a kernel hold at a time.
constexpr int64_t kScoreBytes = 64 << 20;

const char* element(const void* data, int64_t index) {
  return static_cast<const char*>(data) + index * static_cast<int64_t>(size_of(DType::kBF16));
}
char* element(void* data, int64_t index) {
  return static_cast<char*>(data) + index * static_cast<int64_t>(size_of(DType::kBF16));
}

/// Some query rows of one head by way of their scores in memory: for head dims that no kernel has room for, as the one
/// head of a VAE.
void attend_rows(const Context& context, Matmul* matmul, const AttentionParams& p, int64_t batch, int64_t head,
                 int64_t first_row, int64_t rows, const Tensor& scores, const Tensor& probabilities) {
  const int64_t kv_head = head / (p.heads / p.kv_heads);
  const int64_t stride = scores.stride(0);
  MatmulProblem product;
  product.rows = rows;
  product.columns = p.key_tokens;
  product.depth = p.head_dim;
  product.a = element(p.q.data, batch * p.q_strides.batch + head * p.q_strides.head + first_row * p.q_strides.token);
  product.a_row_stride = p.q_strides.token;
  product.b = element(p.k.data, batch * p.k_strides.batch + kv_head * p.k_strides.head);
  product.b_row_stride = p.k_strides.token;
  product.out = scores.data();
  product.out_dtype = DType::kF32;
  product.out_row_stride = stride;
  matmul->run(context, product);

  ScoreSoftmax softmax{};
  softmax.scores = static_cast<const float*>(scores.data());
  softmax.probabilities = probabilities.data();
  if (p.lse != nullptr) softmax.lse = p.lse + (batch * p.heads + head) * p.query_tokens + first_row;
  softmax.rows = rows;
  softmax.first_row = first_row;
  softmax.keys = p.key_tokens;
  softmax.stride = stride;
  if (p.relative_bias != nullptr) {
    softmax.relative_bias = p.relative_bias + head * (p.query_tokens + p.key_tokens - 1);
  }
  if (p.key_lengths != nullptr) softmax.key_length = p.key_lengths + batch;
  softmax.query_tokens = p.query_tokens;
  softmax.scale = p.scale;
  softmax.causal = p.causal;
  launch_score_softmax(compute_stream(context), softmax);

  MatmulProblem values;
  values.rows = rows;
  values.columns = p.head_dim;
  values.depth = p.key_tokens;
  values.a = probabilities.data();
  values.a_row_stride = stride;
  values.b = element(p.v.data, batch * p.v_strides.batch + kv_head * p.v_strides.head);
  values.b_row_stride = p.v_strides.token;
  values.b_is_depth_major = true;
  values.out =
      element(p.out.data, batch * p.out_strides.batch + head * p.out_strides.head + first_row * p.out_strides.token);
  values.out_row_stride = p.out_strides.token;
  matmul->run(context, values);
}

void wide_attention(const Context& context, Matmul* matmul, const AttentionParams& p) {
  // Rows in multiples of 16 bytes suit every algorithm.
  const int64_t stride = round_up(p.key_tokens, 8);
  const int64_t chunk = std::clamp<int64_t>(kScoreBytes / (stride * 4), 1, p.query_tokens);
  const Tensor scores = context.empty({chunk, stride}, DType::kF32);
  const Tensor probabilities = context.empty({chunk, stride}, DType::kBF16);
  for (int64_t batch = 0; batch < p.batch; ++batch) {
    for (int64_t head = 0; head < p.heads; ++head) {
      for (int64_t row = 0; row < p.query_tokens; row += chunk) {
        attend_rows(context, matmul, p, batch, head, row, std::min(chunk, p.query_tokens - row), scores, probabilities);
      }
    }
  }
}

[[noreturn]] void fail_head_dim(const char* what, int64_t head_dim) {
  throw Error(
      ErrorCode::kUnsupported,
      "expected a head dim of at most " + std::to_string(kMaxPortableHeadDim) + ", found " + std::to_string(head_dim),
      what);
}

}  // namespace

void CudaBackend::attention(const Context& context, const AttentionParams& params) {
  if (params.batch == 0 || params.query_tokens == 0 || params.heads == 0 || params.head_dim == 0) return;
  const cudaStream_t stream = compute_stream(context);
  const bool portable = params.head_dim <= kMaxPortableHeadDim;
  if (!portable && params.column_sums != nullptr) fail_head_dim("attention: column sums", params.head_dim);
  if (!portable && params.key_tokens == 0) fail_head_dim("attention without keys", params.head_dim);
  const bool hopper = sm90::takes(device_, params);
  if (params.column_sums != nullptr && params.key_tokens > 0 && !(hopper && sm90::computes_column_sums(params))) {
    // Before lse is written: column_lse may be the same buffer.
    launch_column_sums(stream, params);
  }
  if (hopper) {
    const int64_t bytes = sm90::dense_attention_workspace_bytes(device_, params);
    const Tensor workspace = bytes > 0 ? context.empty({bytes}, DType::kU8) : Tensor();
    sm90::launch_dense_attention(stream, device_, params, workspace.data());
  } else if (portable) {
    launch_portable_attention(stream, params);
  } else {
    wide_attention(context, matmul_.get(), params);
  }
}

void CudaBackend::column_attention(const Context& context, const ColumnAttentionParams& params) {
  if (params.batch == 0 || params.query_tokens == 0 || params.heads == 0 || params.head_dim == 0) return;
  if (params.head_dim > kMaxPortableHeadDim) fail_head_dim("column_attention", params.head_dim);
  const cudaStream_t stream = compute_stream(context);
  if (sm90::takes(device_, params)) {
    sm90::launch_column_attention(stream, device_, params);
  } else {
    launch_portable_column_attention(stream, params);
  }
}

}  // namespace chipmunk::cuda
