#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace chipmunk {

/// The weights that one part of a model, such as a transformer block, uses together.
struct WeightGroup {
  std::string name;
  std::vector<Tensor*> tensors;  ///< of the model; empty ones are left out
};

/// Hears how much of the weights has been sent: bytes done, bytes in all.
using UploadProgress = std::function<void(size_t done, size_t total)>;

}  // namespace chipmunk
