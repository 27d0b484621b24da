#pragma once

#include <cstdint>
#include <vector>

#include "core/context.h"

namespace chipmunk {

/// cos and sin of each token's rotary angles: f32 [T, D / 2], host-computed in double.
struct RopeTables {
  Tensor cos, sin;
};

/// Angles position[axis] * theta^(-2i / dim) for i in [0, dim/2), the axes side by side.
/// positions: [T][axes], token-major. Each axis dimension is even.
RopeTables make_rope_tables(const Context& context, const std::vector<double>& positions,
                            const std::vector<int64_t>& axes_dims, double theta);

/// FLUX's tokens in order: text_tokens at (0, 0, 0), then the image's grid, row-major, at (0, row, column).
std::vector<double> flux_positions(int64_t text_tokens, int64_t grid_height, int64_t grid_width);

}  // namespace chipmunk
