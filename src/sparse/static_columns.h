#pragma once

#include <cstdint>

#include "sparse/column_mask.h"
#include "sparse/token_order.h"

namespace chipmunk {

/// The columns that query groups keep whatever the column sums say. Tokens: the video in voxel order (see TokenOrder),
/// then the text; groups: every voxel.volume() tokens of that sequence, the last one may be shorter.
struct StaticColumnRule {
  VideoShape video;
  int64_t text_tokens = 0;
  VideoShape voxel = kVideoVoxel;
  /// Voxels per axis of the local window; 0 along any axis switches it off. See static_columns.
  VideoShape local_voxels{0, 0, 0};
  /// Fraction of all columns, [0, 1], that each group keeps around itself.
  double local_1d_window = 0.0;
  /// Groups past the last whole voxel keep every column.
  bool tail_groups_keep_all = false;
  /// Every group keeps the video tokens past the last whole voxel.
  bool all_groups_keep_tail = false;
};

/// The static columns [groups, video + text tokens]:
/// - every text column in every group; every column in groups that hold a text query;
/// - the local window: a voxel keeps the 2 floor(l / 2) + 1 voxels around it along each axis (the whole axis if that is
///   shorter), shifted inwards at the borders; video groups without a whole voxel keep the last
///   voxel.volume() * local_voxels.volume() columns;
/// - the 1-D window (add_1d_window) and the tail options.
/// Throws kInvalidArgument for sides below 1, negative windows or text, or fractions outside of [0, 1].
/// Source: Chipmunk, "local voxels", without the published code's accidents.
ColumnMask static_columns(const StaticColumnRule& rule);

/// Every row keeps the columns [begin, end). Throws kInvalidArgument for a range outside of the mask.
void keep_columns(ColumnMask& mask, int64_t begin, int64_t end);

/// Rows whose group of `group_size` query tokens holds one of the tokens [begin, end) keep every column. For text:
/// [0, T) where the text comes first. Throws kInvalidArgument for a negative range or a group_size below 1.
void keep_all_in_groups_of(ColumnMask& mask, int64_t group_size, int64_t begin, int64_t end);

/// Each row keeps the floor(fraction * columns) columns around the middle of its group of `group_size` query tokens,
/// shifted inwards at the ends. Queries and columns are the same tokens. Throws kInvalidArgument for a fraction
/// outside of [0, 1] or a group_size below 1.
void add_1d_window(ColumnMask& mask, int64_t group_size, double fraction);

}  // namespace chipmunk
