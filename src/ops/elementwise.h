#pragma once

#include "core/context.h"
#include "params.h"

namespace chipmunk::ops {

/// out = x element by element, between any strides and floating dtypes (or equal dtypes); equal shapes, no overlap.
void copy_into(const Context& context, const Tensor& x, const Tensor& out);
/// A dense copy of x in `dtype`, or x itself if it is that already.
Tensor to_dense(const Context& context, const Tensor& x, DType dtype);

/// out = alpha a + beta b; equal shapes, any strides (0 repeats). out may be a or b.
void axpby_into(const Context& context, float alpha, const Tensor& a, float beta, const Tensor& b, const Tensor& out);

/// out = activation(x); x: rows of the last dimension, dense in front of it or rank 2. out may be x.
void activation_into(const Context& context, Activation activation, const Tensor& x, const Tensor& out);
Tensor activation(const Context& context, Activation activation, const Tensor& x);
/// out = min(max(x, low), high), NaN staying NaN; rows as for activation_into. out may be x.
void clamp_into(const Context& context, const Tensor& x, float low, float high, const Tensor& out);
/// activation(gate) * x; equal shapes.
Tensor gated_activation(const Context& context, Activation activation, const Tensor& gate, const Tensor& x);

/// out = residual + gate * x. x, residual, out: [B, T, C] or [T, C]; gate: [B, C]. out may be residual.
void gated_add_into(const Context& context, const Tensor& x, const Tensor& gate, const Tensor& residual,
                    const Tensor& out);

/// Rows of `table` ([rows, C], any floating dtype) at `indices` (i32 [count], on the context's device, each in range:
/// the caller's duty), in the dtype of activations: [count, C].
Tensor embedding(const Context& context, const Tensor& indices, const Tensor& table);

/// Sinusoidal embedding of f32 arguments [B] as [B, channels], cosines first (see TimestepEmbeddingParams).
Tensor timestep_embedding(const Context& context, const Tensor& arguments, int64_t channels,
                          float max_period = 10000.0f);

}  // namespace chipmunk::ops
