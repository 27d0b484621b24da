#pragma once

#include "core/context.h"
#include "params.h"

namespace chipmunk::ops {

/// The affine part of a norm: both or neither.
struct NormAffine {
  Tensor weight, bias;  ///< [C]
};

/// Adaptive modulation of a norm's output, y * (1 + scale) + shift: both or neither.
struct Modulation {
  Tensor shift, scale;  ///< [B, C], one row a sample; views with equal strides
};

/// What is added to x before its norm, gate * value: both or neither.
struct GatedUpdate {
  Tensor value;  ///< as x
  Tensor gate;   ///< [B, C]
};

/// Layer norm over the last dimension of x ([T, C] or [B, T, C]), then the affine part, then the modulation. An update
/// is added to x first, as gated_add_into does, with the same bits; out is other memory then.
void layer_norm_into(const Context& context, const Tensor& x, const Tensor& out, float epsilon,
                     const NormAffine& affine = {}, const Modulation& modulation = {}, const GatedUpdate& update = {});
Tensor layer_norm(const Context& context, const Tensor& x, float epsilon, const NormAffine& affine = {},
                  const Modulation& modulation = {});

struct LayerNormCall {
  Tensor x, out;
  float epsilon;
  NormAffine affine = {};
  Modulation modulation = {};
  GatedUpdate update = {};
};
/// Two calls of layer_norm_into of which neither writes what the other reads: a GPU may compute them together.
void layer_norm_pair_into(const Context& context, const LayerNormCall& first, const LayerNormCall& second);

/// x / sqrt(mean(x^2) + epsilon) * weight over the last dimension; x: [T, C] or dense [B, T, C].
Tensor rms_norm(const Context& context, const Tensor& x, const Tensor& weight, float epsilon);

/// Group norm of channels-last images x: dense [B, height, width, C], then activation.
Tensor group_norm(const Context& context, const Tensor& x, const NormAffine& affine, int64_t groups, float epsilon,
                  Activation activation = Activation::kNone);

}  // namespace chipmunk::ops
