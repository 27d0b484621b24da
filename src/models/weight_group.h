#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace chipmunk {

/// A weight [rows, columns] of the model that becomes f8_e4m3 on its way, and the scales [rows] that it gets for it
/// (core/fp8_rows.h).
struct QuantizedWeight {
  Tensor* weight;
  Tensor* scales;
};

/// The weights that one part of a model, such as a transformer block, uses together.
struct WeightGroup {
  std::string name;
  std::vector<Tensor*> tensors;                 ///< of the model; empty ones are left out
  std::vector<QuantizedWeight> quantized = {};  ///< weights among the tensors, and scales, which are empty until then
};

/// Hears how much of the weights has been sent: bytes done, bytes in all.
using UploadProgress = std::function<void(size_t done, size_t total)>;

}  // namespace chipmunk
