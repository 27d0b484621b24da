#pragma once

#include <vector>

#include "core/context.h"
#include "ops/qk_norm_rope.h"
#include "params.h"

namespace chipmunk {

/// y = x weight^T + bias.
struct Linear {
  Tensor weight;  ///< [out_features, in_features], rows may be strided
  Tensor bias;    ///< [out_features], or empty
  /// f32 [out_features], or empty. Given, the weight is f8_e4m3, row n of it times scale[n], and the rows of x are
  /// quantised in the same way before they are multiplied (core/fp8_rows.h).
  Tensor scale = {};

  int64_t in_features() const { return weight.dim(1); }
  int64_t out_features() const { return weight.dim(0); }
};

namespace ops {

/// The heads of q and of k among the columns of a linear's output: q's come first, then k's, then other columns.
struct LinearHeads {
  int64_t count = 0;  ///< of q, and of k; 0: there are none
  int64_t head_dim = 0;
  QkNormRope norm_rope;
};

/// What follows a matmul before its result is stored: residual + gate * (activation(y) + addend); or what becomes of
/// heads.
struct LinearEpilogue {
  Activation activation = Activation::kNone;
  Tensor gate;             ///< [B, out_features], one row a sample, or empty
  Tensor residual;         ///< the shape of out, or empty; may be out itself
  LinearHeads heads = {};  ///< excludes the others
  Tensor addend = {};      ///< the shape of out, or empty; with gate and residual only
};

/// x: [T, K] or [B, T, K] in the dtype of activations; out: the same with out_features in place of K.
/// Rows and batches may be strided; of rank 3, tokens may lie side by side in place of channels where
/// takes_dense_tokens says so. Throws kShapeMismatch, kInvalidArgument, kUnsupported.
void linear_into(const Context& context, const Tensor& x, const Linear& layer, const Tensor& out,
                 const LinearEpilogue& epilogue = {});
/// The same into new memory.
Tensor linear(const Context& context, const Tensor& x, const Linear& layer, const LinearEpilogue& epilogue = {});

struct LinearCall {
  Tensor x;
  Linear layer;
  Tensor out;
  LinearEpilogue epilogue = {};
  /// A GPU may compute it beside the op that was queued last: that writes nothing that this one reads, and does not use
  /// what this one writes, nor had memory that was freed since and may now be written.
  bool overlaps_last = false;
};
void linear_into(const Context& context, const LinearCall& call);
/// Two calls of linear_into of which neither writes what the other reads: a GPU may compute them together.
void linear_pair_into(const Context& context, const LinearCall& first, const LinearCall& second);

/// Whether an addend of the call costs little: gated_add_into goes ahead of the linear where not.
bool fuses_addend(const Context& context, const LinearCall& call);

/// Whether the device computes a linear, or a pair, of which tokens lie side by side in x or in out.
bool takes_dense_tokens(const Context& context, const std::vector<LinearCall>& calls);

}  // namespace ops
}  // namespace chipmunk
