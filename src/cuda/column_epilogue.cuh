#pragma once

#include <cuda_bf16.h>

#include "params.h"

/// How column attention's result joins what is known of the other keys, row by row; params.h has the formulas.
namespace chipmunk::cuda {

struct ColumnEpilogueOperands {
  ColumnEpilogue kind;
  const __nv_bfloat16* residual;  // or null
  HeadStrides residual_strides;
  const float* lse_all;
  float* lse_rest;
};

inline ColumnEpilogueOperands column_epilogue_operands(const ColumnAttentionParams& params) {
  return {params.epilogue, static_cast<const __nv_bfloat16*>(params.residual.data), params.residual_strides,
          params.lse_all, params.lse_rest};
}

/// out = residual * (the residual) + sparse * A_S. What has a weight of 0 does not count, whatever its value.
struct RowWeights {
  float residual, sparse;
};

/// The weights of the row at lse_index, whose denominators over the kept keys have this logarithm. Writes lse_rest for
/// kSplit, where `writer`.
__device__ inline RowWeights row_weights(const ColumnEpilogueOperands& a, bool all_keys, int64_t lse_index, float lse,
                                         bool writer) {
  // 1 - m is not trusted below this: it is the difference of two logarithms of sums.
  constexpr float kMinRest = 1e-7f;
  switch (a.kind) {
    case ColumnEpilogue::kNone: return {0.0f, 1.0f};
    case ColumnEpilogue::kAdd: return {1.0f, 1.0f};
    case ColumnEpilogue::kSubtract: return {1.0f, -1.0f};
    case ColumnEpilogue::kSplit: {
      const float all = a.lse_all[lse_index];
      const bool nothing_left = all_keys || all == -INFINITY;
      // Summed in another order, a part may come out larger than the whole. Comparisons keep a NaN, fminf does not.
      const float log_kept = lse > all ? 0.0f : lse - all;
      const float left = -expm1f(log_kept);
      if (writer) a.lse_rest[lse_index] = nothing_left ? -INFINITY : all + logf(left < kMinRest ? kMinRest : left);
      return nothing_left ? RowWeights{0.0f, 0.0f} : RowWeights{1.0f, -expf(log_kept)};
    }
    case ColumnEpilogue::kMerge: {
      const float rest = a.lse_rest[lse_index];
      const float base = fmaxf(rest, lse);
      // Not by the larger one, which hides a NaN.
      if (rest == -INFINITY && lse == -INFINITY) return {0.0f, 0.0f};
      const float total = expf(rest - base) + expf(lse - base);
      return {rest == -INFINITY ? 0.0f : expf(a.lse_all[lse_index] - base) / total, expf(lse - base) / total};
    }
  }
  return {0.0f, 1.0f};
}

}  // namespace chipmunk::cuda
