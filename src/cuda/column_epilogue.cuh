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

/// What a row's epilogue reads besides the residual.
struct KnownLse {
  float all = 0.0f, rest = 0.0f;
};

__device__ constexpr bool reads_lse_all(ColumnEpilogue kind) {
  return kind == ColumnEpilogue::kSplit || kind == ColumnEpilogue::kMerge;
}
__device__ constexpr bool reads_lse_rest(ColumnEpilogue kind) { return kind == ColumnEpilogue::kMerge; }

__device__ inline KnownLse load_known_lse(const ColumnEpilogueOperands& a, int64_t lse_index) {
  return {reads_lse_all(a.kind) ? a.lse_all[lse_index] : 0.0f, reads_lse_rest(a.kind) ? a.lse_rest[lse_index] : 0.0f};
}

/// The weights of a row whose denominators over the kept keys have the logarithm `lse`. For kSplit, known.rest becomes
/// that of what is left.
__device__ inline RowWeights row_weights(ColumnEpilogue kind, bool all_keys, KnownLse& known, float lse) {
  // 1 - m is not trusted below this: it is the difference of two logarithms of sums.
  constexpr float kMinRest = 1e-7f;
  switch (kind) {
    case ColumnEpilogue::kNone: return {0.0f, 1.0f};
    case ColumnEpilogue::kAdd: return {1.0f, 1.0f};
    case ColumnEpilogue::kSubtract: return {1.0f, -1.0f};
    case ColumnEpilogue::kSplit: {
      const bool nothing_left = all_keys || known.all == -INFINITY;
      // Summed in another order, a part may come out larger than the whole. Comparisons keep a NaN, fminf does not.
      const float log_kept = lse > known.all ? 0.0f : lse - known.all;
      const float left = -expm1f(log_kept);
      known.rest = nothing_left ? -INFINITY : known.all + logf(left < kMinRest ? kMinRest : left);
      return nothing_left ? RowWeights{0.0f, 0.0f} : RowWeights{1.0f, -expf(log_kept)};
    }
    case ColumnEpilogue::kMerge: {
      const float base = fmaxf(known.rest, lse);
      // Not by the larger one, which hides a NaN.
      if (known.rest == -INFINITY && lse == -INFINITY) return {0.0f, 0.0f};
      const float total = expf(known.rest - base) + expf(lse - base);
      return {known.rest == -INFINITY ? 0.0f : expf(known.all - base) / total, expf(lse - base) / total};
    }
  }
  return {0.0f, 1.0f};
}

}  // namespace chipmunk::cuda
