#pragma once

#include <cstdint>

#include "cpu/workspace.h"

/// What linears with weights in f8_e4m3 do to their operands on the CPU (core/fp8_rows.h).
namespace chipmunk::cpu {

/// An op's x, f32 [batch, rows, channels], where its parameters name it.
struct RowsOfX {
  In& x;
  int64_t batch, rows, channels;
  int64_t &batch_stride, &row_stride;
};

/// Has x name its rows as such a linear sees them: rounded to f8_e4m3, and back in f32 with their scales. They live as
/// long as what is returned.
Workspace round_to_fp8(const Context& context, int threads, const RowsOfX& rows);

/// Multiplies the columns of a packed panel, [depth][panel_width], by their features' scales.
void scale_panel(const float* scales, int64_t columns, int64_t panel_width, int64_t depth, float* panel);

}  // namespace chipmunk::cpu
