#include "ops/attention.h"

#include <cmath>

#include "backend.h"
#include "chipmunk/error.h"
#include "ops/check.h"

namespace chipmunk::ops {
void attention_into(const Context& context, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& result,
                    const AttentionOptions& options) {
  check_heads(context, q, "attention: q");
  check_heads(context, k, "attention: k");
  check_heads(context, v, "attention: v");
  check_heads(context, result, "attention: out");
  const int64_t batch = q.dim(0), n = q.dim(1), heads = q.dim(2), head_dim = q.dim(3);
  const int64_t m = k.dim(1), kv_heads = k.dim(2);
  check_shape(context, k, {batch, m, kv_heads, head_dim}, "attention: k");
  check_shape(context, v, {batch, m, kv_heads, head_dim}, "attention: v");
  check_shape(context, result, q.shape(), "attention: out");
  if (kv_heads == 0 || heads % kv_heads != 0) {
    fail_shape("attention: k", "a divisor of " + std::to_string(heads) + " as number of heads", k);
  }
  if (options.relative_bias) {
    check_f32(context, options.relative_bias, {heads, n + m - 1}, "attention: relative_bias");
  }
  if (options.key_lengths) {
    check_shape(context, options.key_lengths, {batch}, "attention: key_lengths");
    check_dtype(options.key_lengths, DType::kI32, "attention: key_lengths");
    check_dense(options.key_lengths, "attention: key_lengths");
  }
  if (options.lse) check_f32(context, options.lse, {batch, heads, n}, "attention: lse");
  if (options.column_sums) {
    if (options.group_size < 1) fail_argument("attention: group_size", "at least 1", options.group_size);
    const int64_t groups = (n + options.group_size - 1) / options.group_size;
    check_f32(context, options.column_sums, {batch, heads, groups, m}, "attention: column_sums");
    check_f32(context, options.column_lse, {batch, heads, n}, "attention: column_lse");
  }

  AttentionParams params{};
  params.q = in(q);
  params.k = in(k);
  params.v = in(v);
  params.out = out(result);
  params.lse = static_cast<float*>(options.lse.data());
  params.relative_bias = static_cast<const float*>(options.relative_bias.data());
  params.key_lengths = static_cast<const int32_t*>(options.key_lengths.data());
  params.column_sums = static_cast<float*>(options.column_sums.data());
  params.column_lse = static_cast<const float*>(options.column_lse.data());
  params.group_size = options.group_size;
  params.q_strides = head_strides(q);
  params.k_strides = head_strides(k);
  params.v_strides = head_strides(v);
  params.out_strides = head_strides(result);
  params.batch = batch;
  params.query_tokens = n;
  params.key_tokens = m;
  params.heads = heads;
  params.kv_heads = kv_heads;
  params.head_dim = head_dim;
  params.scale = options.scale != 0.0f ? options.scale : 1.0f / std::sqrt(static_cast<float>(head_dim));
  params.causal = options.causal;
  context.backend().attention(context, params);
}

}  // namespace chipmunk::ops
