#pragma once

#include "core/context.h"
#include "params.h"

namespace chipmunk {

/// y = x weight^T + bias.
struct Linear {
  Tensor weight;  ///< [out_features, in_features], rows may be strided
  Tensor bias;    ///< [out_features], or empty

  int64_t in_features() const { return weight.dim(1); }
  int64_t out_features() const { return weight.dim(0); }
};

namespace ops {

/// What follows a matmul before its result is stored: residual + gate * activation(y).
struct LinearEpilogue {
  Activation activation = Activation::kNone;
  Tensor gate;      ///< [B, out_features], one row a sample, or empty
  Tensor residual;  ///< the shape of out, or empty; may be out itself
};

/// x: [T, K] or [B, T, K] in the dtype of activations; out: the same with out_features in place of K.
/// Rows and batches may be strided. Throws kShapeMismatch.
void linear_into(const Context& context, const Tensor& x, const Linear& layer, const Tensor& out,
                 const LinearEpilogue& epilogue = {});
/// The same into new memory.
Tensor linear(const Context& context, const Tensor& x, const Linear& layer, const LinearEpilogue& epilogue = {});

}  // namespace ops
}  // namespace chipmunk
