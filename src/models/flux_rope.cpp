#include "models/flux_rope.h"

#include <cmath>
#include <cstddef>
#include <numeric>

namespace chipmunk {

RopeTables make_rope_tables(const Context& context, const std::vector<double>& positions,
                            const std::vector<int64_t>& axes_dims, double theta) {
  const size_t axes = axes_dims.size();
  const int64_t tokens = static_cast<int64_t>(positions.size() / axes);
  const int64_t half = std::accumulate(axes_dims.begin(), axes_dims.end(), int64_t{0}) / 2;
  const Tensor cos = make_host_tensor({tokens, half}, DType::kF32);
  const Tensor sin = make_host_tensor({tokens, half}, DType::kF32);
  float* cos_out = cos.data_as<float>();
  float* sin_out = sin.data_as<float>();
  for (int64_t token = 0; token < tokens; ++token) {
    for (size_t axis = 0; axis < axes; ++axis) {
      const double position = positions[static_cast<size_t>(token) * axes + axis];
      const int64_t dim = axes_dims[axis];
      for (int64_t i = 0; i < dim / 2; ++i) {
        const double frequency = 1.0 / std::pow(theta, 2.0 * static_cast<double>(i) / static_cast<double>(dim));
        *cos_out++ = static_cast<float>(std::cos(position * frequency));
        *sin_out++ = static_cast<float>(std::sin(position * frequency));
      }
    }
  }
  return {context.to_device(cos), context.to_device(sin)};
}

std::vector<double> flux_positions(int64_t text_tokens, int64_t grid_height, int64_t grid_width) {
  std::vector<double> positions(static_cast<size_t>(text_tokens) * 3, 0.0);
  positions.reserve(positions.size() + static_cast<size_t>(grid_height * grid_width) * 3);
  for (int64_t row = 0; row < grid_height; ++row) {
    for (int64_t column = 0; column < grid_width; ++column) {
      positions.insert(positions.end(), {0.0, static_cast<double>(row), static_cast<double>(column)});
    }
  }
  return positions;
}

}  // namespace chipmunk
