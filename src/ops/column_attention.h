#pragma once

#include "core/context.h"
#include "params.h"

namespace chipmunk::ops {

/// Which keys each group of query rows reads.
struct ColumnSet {
  Tensor indices;          ///< i32 [B, H, G, capacity]: ascending keys; entries past the count are ignored
  Tensor counts;           ///< i32 [B, H, G]: in [0, capacity], or M: every key, with no list
  int64_t group_size = 0;  ///< query rows per group; G = ceil(N / group_size)
};

struct ColumnAttentionOptions {
  float scale = 0.0f;  ///< multiplies q k^T; 0 means 1 / sqrt(D)
  ColumnEpilogue epilogue = ColumnEpilogue::kNone;
  Tensor residual;             ///< [B, N, H, D]; for every epilogue but kNone
  Tensor lse;                  ///< f32 [B, H, N], receives lse_S; or empty
  Tensor lse_all, lse_rest;    ///< f32 [B, H, N]; for kSplit (which writes lse_rest) and kMerge
  bool overlaps_last = false;  ///< see LinearCall
};

/// Attention over the keys of `columns` alone, joined with what is known of the others (see ColumnEpilogue).
/// q, out: [B, N, H, D]; k, v: [B, M, H, D]; any strides but a dense head dimension. out may be the residual. Counts
/// and indices are the caller's duty. Throws kShapeMismatch, kInvalidArgument.
void column_attention_into(const Context& context, const Tensor& q, const Tensor& k, const Tensor& v,
                           const ColumnSet& columns, const Tensor& out, const ColumnAttentionOptions& options = {});

struct ColumnSelection {
  int64_t top_k = 0;      ///< see top_k_count in core/column_selection.h
  int64_t room_keys = 0;  ///< see has_room
  int64_t multiple_of = 1;
  Tensor static_columns;          ///< u8 [G, M] or, per head, [H, G, M]; or empty for none
  Tensor random_columns;          ///< u8 [B, H, G, M]; or empty
  RandomRow random;               ///< batch, head and group are filled in
  uint64_t random_threshold = 0;  ///< of drawn columns: random_threshold(probability)
};

/// Chooses each group's keys from column sums, f32 [B, H, G, M]. columns.indices and counts are overwritten; a group
/// that would keep more than their capacity keeps every key. Throws kShapeMismatch, kInvalidArgument.
void select_columns(const Context& context, const Tensor& column_sums, const ColumnSelection& selection,
                    const ColumnSet& columns);

}  // namespace chipmunk::ops
