#pragma once

#include <map>
#include <string>

#include "core/tensor.h"

namespace chipmunk::conformance {

/// Computed tensors by name: dense host tensors, f32, i32 or u8.
using Results = std::map<std::string, Tensor>;

}  // namespace chipmunk::conformance
