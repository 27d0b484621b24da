#include "models/flux_rope.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <numeric>

namespace chipmunk {

RopeTables make_rope_tables(const Context& context, const std::vector<double>& positions,
                            const std::vector<int64_t>& axes_dims, double theta) {
  const size_t axes = axes_dims.size();
  const size_t tokens = positions.size() / axes;
  const int64_t half = std::accumulate(axes_dims.begin(), axes_dims.end(), int64_t{0}) / 2;
  const Tensor cos = make_host_tensor({static_cast<int64_t>(tokens), half}, DType::kF32);
  const Tensor sin = make_host_tensor({static_cast<int64_t>(tokens), half}, DType::kF32);
  auto *cos_of = cos.data_as<float>(), *sin_of = sin.data_as<float>();  // the axis' angles of a token
  for (size_t axis = 0; axis < axes; ++axis) {
    const int64_t angles = axes_dims[axis] / 2;
    std::vector<double> frequencies;
    for (int64_t i = 0; i < angles; ++i) {
      frequencies.push_back(1.0 / std::pow(theta, 2.0 * static_cast<double>(i) / static_cast<double>(axes_dims[axis])));
    }
    // A grid's tokens share few positions: the first token at one is computed, the others are copies of it.
    std::map<double, int64_t> first_at;
    for (size_t token = 0; token < tokens; ++token) {
      const double position = positions[token * axes + axis];
      const int64_t row = static_cast<int64_t>(token) * half;
      const auto [known, is_new] = first_at.try_emplace(position, row);
      if (!is_new) {
        std::copy_n(cos_of + known->second, angles, cos_of + row);
        std::copy_n(sin_of + known->second, angles, sin_of + row);
        continue;
      }
      for (int64_t i = 0; i < angles; ++i) {
        const double angle = position * frequencies[static_cast<size_t>(i)];
        cos_of[row + i] = static_cast<float>(std::cos(angle));
        sin_of[row + i] = static_cast<float>(std::sin(angle));
      }
    }
    cos_of += angles;
    sin_of += angles;
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
