#pragma once

#include <map>
#include <string>

#include "core/context.h"

namespace chipmunk::conformance {

/// Computed tensors by name: dense host tensors, f32, i32 or u8.
using Results = std::map<std::string, Tensor>;

/// A dense f32 copy in host memory, which later writes to the tensor's memory do not change: intermediates live in
/// buffers that are reused.
Tensor host_f32(const Context& context, const Tensor& tensor);

}  // namespace chipmunk::conformance
