#pragma once

#include "chipmunk/kernels.h"
#include "core/tensor.h"

/// Tensors as the plain structs of chipmunk/kernels.h.
namespace chipmunk::test {

/// [B, tokens, H, D].
inline kernels::Heads plain_heads(const Tensor& tensor) {
  return {tensor.data(), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

/// kernels::Attention or ColumnAttention with what both have.
template <class Arguments>
Arguments plain_arguments(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out) {
  Arguments arguments;
  arguments.sizes = {q.dim(0), q.dim(2), q.dim(1), k.dim(1), q.dim(3)};
  arguments.q = plain_heads(q);
  arguments.k = plain_heads(k);
  arguments.v = plain_heads(v);
  arguments.out = plain_heads(out);
  return arguments;
}

}  // namespace chipmunk::test
