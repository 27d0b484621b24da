#include "conformance/results.h"

#include "ops/elementwise.h"

namespace chipmunk::conformance {

Tensor host_f32(const Context& context, const Tensor& tensor) {
  const Tensor copy = context.empty(tensor.shape(), DType::kF32);
  ops::copy_into(context, tensor, copy);
  return context.to_host(copy);
}

}  // namespace chipmunk::conformance
