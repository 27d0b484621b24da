#pragma once

#include <cstdint>
#include <span>

namespace chipmunk {

// The exact selection on the host: what every other implementation of it is held against. A mask is one byte a column
// (or hidden feature), 1 for kept; see ColumnMask. All spans of one call have the same length, or kShapeMismatch.

/// Columns that top_keys keeps: multiple_of * round(top_keys * num_columns / multiple_of), halves to even, at most
/// num_columns. Throws kInvalidArgument for top_keys outside of [0, 1] or multiple_of < 1.
int64_t top_k_count(double top_keys, int64_t num_columns, int64_t multiple_of = 1);

/// Hidden features that top_keys keeps: F - floor(F * (1 - top_keys)). Throws kInvalidArgument as above.
int64_t top_feature_count(double top_keys, int64_t num_features);

/// Adds the k largest of `scores` to the mask (all if there are fewer); of equal ones the lower index. NaN counts as
/// the smallest.
void add_top_k(std::span<const float> scores, int64_t k, std::span<uint8_t> mask);

/// How the columns of the query groups of one layer are chosen where static columns are in use.
struct ColumnRule {
  int64_t top_k = 0;      ///< see top_k_count
  int64_t room_keys = 0;  ///< floor(top_keys * video tokens): see has_room
};

/// Whether a group has room for chosen columns beside its static ones: static_count + room_keys < num_columns.
/// Groups that hold text keep every column statically, so they have none.
bool has_room(const ColumnRule& rule, int64_t static_count, int64_t num_columns);

/// One group's columns: ((top-k | random) where there is room) | static. With top_k = 0 the static columns alone; with
/// top_k = all columns every column, room or not, so that top_keys = 1 is dense attention.
/// column_sums, static_columns, mask: [num_columns]; random may be empty for none. The mask is overwritten.
void select_columns(std::span<const float> column_sums, std::span<const uint8_t> random,
                    std::span<const uint8_t> static_columns, const ColumnRule& rule, std::span<uint8_t> mask);

/// One token block's hidden features: the top_k largest drifts | random, then the next largest drifts up to a multiple
/// of `multiple_of`, never above the number of features. random may be empty for none. The mask is overwritten.
/// Throws kInvalidArgument for multiple_of < 1.
void select_features(std::span<const float> drift, std::span<const uint8_t> random, int64_t top_k, int64_t multiple_of,
                     std::span<uint8_t> mask);

}  // namespace chipmunk
