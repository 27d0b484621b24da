#pragma once

#include "core/context.h"

namespace chipmunk::ops {

struct AttentionOptions {
  float scale = 0.0f;    ///< multiplies q k^T; 0 means 1 / sqrt(D)
  bool causal = false;   ///< key j is visible to query i where j <= i + (M - N)
  Tensor relative_bias;  ///< f32 [H, N + M - 1], added to score (i, j) at j - i + N - 1; or empty
  Tensor key_lengths;    ///< i32 [B]: keys at or past it are invisible; or empty
  Tensor lse;            ///< f32 [B, H, N], receives ln of each row's softmax denominator; or empty
  /// f32 [B, H, G, M], G = ceil(N / group_size), or empty: receives, per group of query rows and key, the sum of
  /// exp(score - column_lse) over the group's rows.
  Tensor column_sums;
  Tensor column_lse;       ///< f32 [B, H, N]: normalises column_sums; may be lse, whose old values count
  int64_t group_size = 0;  ///< query rows that share column sums
};

/// out = softmax(scale q k^T + bias) v.
/// q, out: [B, N, H, D]; k, v: [B, M, H_kv, D] with H a multiple of H_kv; token-major views with any strides but a
/// dense head dimension. A row without a visible key gives 0. Throws kShapeMismatch.
void attention_into(const Context& context, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                    const AttentionOptions& options = {});

}  // namespace chipmunk::ops
