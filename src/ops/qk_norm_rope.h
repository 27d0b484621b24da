#pragma once

#include "core/context.h"

namespace chipmunk::ops {

struct QkNormRope {
  Tensor q_weight, k_weight;  ///< [D] RMS norm weights, or both empty for no norm
  Tensor cos, sin;            ///< f32 [T, D / 2], or both empty for no rotary embedding
  float epsilon = 1e-6f;
};

/// Throws unless the arguments are right for heads of T tokens and D values; `what` names the op.
void check_qk_norm_rope(const Context& context, const QkNormRope& arguments, int64_t tokens, int64_t head_dim,
                        const char* what);

/// In place on q and k, [B, T, H, D]: RMS norm of each head, then rotation of the pairs (2i, 2i + 1).
void qk_norm_rope(const Context& context, const Tensor& q, const Tensor& k, const QkNormRope& arguments);

}  // namespace chipmunk::ops
