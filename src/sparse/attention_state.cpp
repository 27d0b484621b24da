#include "sparse/attention_state.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "chipmunk/error.h"
#include "core/column_selection.h"
#include "core/random_columns.h"
#include "ops/attention.h"

namespace chipmunk {
namespace {

/// Room for the lists: the longest static set that is not everything, the top-k, and as many random columns as eight
/// standard deviations above their mean; a group that draws more keeps every column.
int64_t list_capacity(const SparseAttentionPlan& plan, const ColumnMask& static_columns, double random_share) {
  int64_t longest = 0;
  for (int64_t i = 0; i < static_columns.rows; ++i) {
    const int64_t count = static_columns.count(i);
    if (count < plan.shape.tokens) longest = std::max(longest, count);
  }
  const double n = static_cast<double>(plan.shape.tokens);
  const double mean = n * random_share;
  const double random = random_share > 0.0 ? mean + 8.0 * std::sqrt(mean * (1.0 - random_share)) + 8.0 : 0.0;
  const int64_t wanted = longest + plan.top_k + static_cast<int64_t>(random) + plan.multiple_of - 1;
  return std::min(wanted, plan.shape.tokens);
}

void require(const Tensor& tensor, AttentionStep kind, const char* what) {
  if (tensor.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "a " + std::string(to_string(kind)) + " step needs " + what + " of an earlier step",
                "sparse attention");
  }
}

}  // namespace

SparseAttentionPlan SparseAttentionPlan::make(const Context& context, const SparsityConfig::Attn& config,
                                              const AttentionShape& shape, int64_t video_tokens,
                                              const ColumnMask& static_columns, uint64_t seed) {
  SparseAttentionPlan plan;
  plan.shape = shape;
  plan.combine = config.combine;
  plan.top_k = top_k_count(config.top_keys, shape.tokens);
  plan.seed = seed;
  double random_share = 0.0;
  if (config.should_compress_indices) {
    plan.room_keys = static_cast<int64_t>(config.top_keys * static_cast<double>(video_tokens));
    random_share = config.random_keys;
    plan.random_threshold = chipmunk::random_threshold(random_share);
  }
  if (static_columns.rows > 0) {
    if (static_columns.rows != plan.groups() || static_columns.columns != shape.tokens) {
      throw Error(ErrorCode::kShapeMismatch,
                  "static columns: expected " + std::to_string(plan.groups()) + " x " + std::to_string(shape.tokens) +
                      ", found " + std::to_string(static_columns.rows) + " x " + std::to_string(static_columns.columns),
                  "sparse attention");
    }
    const Tensor host = make_host_tensor({static_columns.rows, static_columns.columns}, DType::kU8);
    std::memcpy(host.data(), static_columns.values.data(), static_columns.values.size());
    plan.static_columns = context.to_device(host);
  }
  plan.capacity = list_capacity(plan, static_columns, random_share);
  return plan;
}

SparseAttentionState::SparseAttentionState(std::shared_ptr<const SparseAttentionPlan> plan, int branch, int layer)
    : plan_(std::move(plan)), branch_(branch), layer_(layer) {}

void SparseAttentionState::dense(const Context& context, const Tensor& q, const Tensor& k, const Tensor& v,
                                 const Tensor& out, bool with_column_sums) {
  const AttentionShape& shape = plan_->shape;
  ops::AttentionOptions options;
  if (lse_.empty()) lse_ = context.empty({shape.batch, shape.heads, shape.tokens}, DType::kF32);
  options.lse = lse_;
  if (with_column_sums) {
    column_sums_ = context.empty({shape.batch, shape.heads, plan_->groups(), shape.tokens}, DType::kF32);
    options.column_sums = column_sums_;
    // A row's own denominator is not known while its keys go by: the last full step's stands for it.
    options.column_lse = lse_;
    options.group_size = plan_->group_size;
  }
  ops::attention_into(context, q, k, v, out, options);
}

void SparseAttentionState::choose_columns(const Context& context, int step, const Tensor& random_columns) {
  if (columns_.indices.empty()) {
    const AttentionShape& shape = plan_->shape;
    const int64_t groups = plan_->groups();
    columns_ = {context.empty({shape.batch, shape.heads, groups, plan_->capacity}, DType::kI32),
                context.empty({shape.batch, shape.heads, groups}, DType::kI32), plan_->group_size};
  }
  ops::ColumnSelection selection;
  selection.top_k = plan_->top_k;
  selection.room_keys = plan_->room_keys;
  selection.multiple_of = plan_->multiple_of;
  selection.static_columns = plan_->static_columns;
  selection.random_columns = random_columns;
  selection.random.seed = plan_->seed;
  selection.random.purpose = RandomPurpose::kAttentionColumns;
  selection.random.step = step;
  selection.random.branch = branch_;
  selection.random.layer = layer_;
  selection.random_threshold = plan_->random_threshold;
  ops::select_columns(context, column_sums_, selection, columns_);
}

ops::ColumnAttentionOptions SparseAttentionState::epilogue(bool full_step) const {
  ops::ColumnAttentionOptions options;
  if (plan_->combine == AttentionCombine::kDifference) {
    options.epilogue = full_step ? ColumnEpilogue::kSubtract : ColumnEpilogue::kAdd;
  } else {
    options.epilogue = full_step ? ColumnEpilogue::kSplit : ColumnEpilogue::kMerge;
    options.lse_all = lse_;
    options.lse_rest = lse_rest_;
  }
  return options;
}

void SparseAttentionState::forward(const Context& context, AttentionStep kind, int step, const Tensor& q,
                                   const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& random_columns,
                                   bool overlaps_last) {
  column_sums_ = {};
  if (kind == AttentionStep::kSkip) {
    throw Error(ErrorCode::kInvalidArgument, "a skipped step computes no attention", "sparse attention");
  }
  if (kind == AttentionStep::kSparse) {
    require(cache_, kind, "the cache");
    ops::ColumnAttentionOptions options = epilogue(false);
    options.residual = cache_;
    options.overlaps_last = overlaps_last;
    ops::column_attention_into(context, q, k, v, columns_, out, options);
    return;
  }
  if (kind == AttentionStep::kRefresh) require(lse_, kind, "the softmax denominators");
  if (kind == AttentionStep::kRecache) require(columns_.indices, kind, "the columns");
  dense(context, q, k, v, out, kind == AttentionStep::kRefresh);
  if (kind == AttentionStep::kDense) return;
  if (kind == AttentionStep::kRefresh) choose_columns(context, step, random_columns);
  if (cache_.empty()) {
    cache_ = context.empty(q.shape());
    if (plan_->combine == AttentionCombine::kMerge) lse_rest_ = context.empty(lse_.shape(), DType::kF32);
  }
  ops::ColumnAttentionOptions options = epilogue(true);
  options.residual = out;
  ops::column_attention_into(context, q, k, v, columns_, cache_, options);
}

}  // namespace chipmunk
