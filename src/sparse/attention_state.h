#pragma once

#include <cstdint>
#include <memory>

#include "core/context.h"
#include "ops/column_attention.h"
#include "sparse/column_mask.h"
#include "sparse/config.h"
#include "sparse/schedule.h"

namespace chipmunk {

/// Sizes of one layer's attention, where queries and keys are the same tokens.
struct AttentionShape {
  int64_t batch = 0, tokens = 0, heads = 0, head_dim = 0;
};

/// What all attention layers of one generation have in common.
struct SparseAttentionPlan {
  AttentionShape shape;
  int64_t group_size = 192;  ///< query rows that share columns: what a block of the Hopper kernel takes
  AttentionCombine combine = AttentionCombine::kMerge;
  int64_t top_k = 0;        ///< see top_k_count
  int64_t room_keys = 0;    ///< see has_room
  int64_t multiple_of = 1;  ///< of the number of columns
  int64_t capacity = 0;     ///< columns that a list has room for
  Tensor static_columns;    ///< u8 [G, N] or [H, G, N] on the device, or empty
  uint64_t random_threshold = 0;
  uint64_t seed = 0;

  int64_t groups() const { return (shape.tokens + group_size - 1) / group_size; }

  /// static_columns: [G, N], or no rows for none. video_tokens: the tokens that are not text.
  static SparseAttentionPlan make(const Context& context, const SparsityConfig::Attn& config,
                                  const AttentionShape& shape, int64_t video_tokens, const ColumnMask& static_columns,
                                  uint64_t seed);
};

/// One layer's attention over the steps of one generation, in one guidance branch: it keeps what the unkept columns
/// contribute (docs/method.md), the columns and the rows' softmax denominators of the last full step.
class SparseAttentionState {
 public:
  /// branch, layer: name the random choices.
  SparseAttentionState(std::shared_ptr<const SparseAttentionPlan> plan, int branch, int layer);

  /// out = attention of this step. q, k, v, out: [B, N, H, D] token-major views with dense heads. kDense stores the
  /// denominators; kRefresh and kRecache are dense too and renew the cache; kSparse reads it.
  /// random_columns: u8 [B, H, G, N], used by kRefresh besides the drawn ones; or empty.
  /// Throws kInvalidArgument for kSkip and for a kind that needs an earlier step which was not run.
  void forward(const Context& context, AttentionStep kind, int step, const Tensor& q, const Tensor& k, const Tensor& v,
               const Tensor& out, const Tensor& random_columns = {}, bool overlaps_last = false);

  /// The columns in force; empty tensors before the first refresh.
  const ops::ColumnSet& columns() const { return columns_; }
  /// f32 [B, H, G, N] of the last refresh; empty before. Freed by the next step.
  const Tensor& column_sums() const { return column_sums_; }
  /// f32 [B, H, N]: ln of the softmax's denominators on the last full step.
  const Tensor& lse() const { return lse_; }
  /// [B, N, H, D]: what the unkept columns contribute.
  const Tensor& cache() const { return cache_; }

 private:
  void dense(const Context& context, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
             bool with_column_sums);
  void choose_columns(const Context& context, int step, const Tensor& random_columns);
  ops::ColumnAttentionOptions epilogue(bool full_step) const;

  std::shared_ptr<const SparseAttentionPlan> plan_;
  int branch_, layer_;
  ops::ColumnSet columns_;
  Tensor column_sums_, lse_, lse_rest_, cache_;
};

}  // namespace chipmunk
