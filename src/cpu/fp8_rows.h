#pragma once

#include <cstdint>

#include "params.h"

/// What linears with weights in f8_e4m3 do to their operands on the CPU (core/fp8_rows.h).
namespace chipmunk::cpu {

/// Rows of x, f32 [batch, rows, channels], as such a linear sees them: rounded to f8_e4m3, and back in f32 with their
/// scales; dense.
void round_to_fp8(int threads, const In& x, int64_t batch, int64_t rows, int64_t channels, int64_t x_batch_stride,
                  int64_t x_row_stride, float* rounded);

/// Multiplies the columns of a packed panel, [depth][panel_width], by their features' scales.
void scale_panel(const float* scales, int64_t columns, int64_t panel_width, int64_t depth, float* panel);

}  // namespace chipmunk::cpu
