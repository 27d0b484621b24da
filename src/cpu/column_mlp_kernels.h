#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace chipmunk::cpu {

/// Rows of a weight [.., depth], row stride `stride`, chosen by their ids; indices null: the first ones in order.
struct WeightRows {
  const void* data;
  DType dtype;
  int64_t stride;
  const int32_t* indices;
};

/// panel[k][r] = row indices[first + r], value k, r < count <= panel width; zeros in the other columns.
/// scratch: panel width x depth floats.
void pack_chosen_rows(const WeightRows& rows, int64_t first, int64_t count, int64_t depth, float* scratch,
                      float* panel);

/// panel[k][c] = row indices[k], value column + c, for k < depth and c < count <= panel width; zeros behind.
void pack_chosen_depth(const WeightRows& rows, int64_t column, int64_t count, int64_t depth, float* panel);

/// The new activations of some features in one token: difference[i] = fresh[i] - row[stride * indices[i]], and the row
/// takes the fresh values. indices null: the features in order.
void exchange_activations(const float* fresh, const int32_t* indices, int64_t count, float* row, int64_t stride,
                          float* difference);

}  // namespace chipmunk::cpu
