#include "sparse/work_estimate.h"

#include <algorithm>
#include <string>

#include "chipmunk/error.h"
#include "core/column_selection.h"

namespace chipmunk {
namespace {

void check(const TransformerShape& shape) {
  const int64_t smallest = std::min({int64_t{shape.num_layers}, shape.tokens, shape.num_heads, shape.head_dim,
                                     shape.channels, shape.mlp_features, shape.group_size, shape.block_size});
  if (smallest < 1 || shape.text_tokens < 0 || shape.text_tokens > shape.tokens) {
    throw Error(ErrorCode::kInvalidArgument,
                "expected sizes of at least 1 and at most as many text tokens as tokens, found a size of " +
                    std::to_string(smallest) + " and " + std::to_string(shape.text_tokens) + " text tokens",
                "work estimate");
  }
}

double groups_of(int64_t tokens, int64_t size) {
  const int64_t groups = (tokens + size - 1) / size;
  return static_cast<double>(groups);
}

double fraction_read(AttentionStep kind, double kept) {
  if (kind == AttentionStep::kSkip) return 0.0;
  return kind == AttentionStep::kSparse ? kept : 1.0;
}

double fraction_computed(MlpStep kind, double kept) {
  if (kind == MlpStep::kSkip) return 0.0;
  return kind == MlpStep::kFull ? 1.0 : kept;
}

struct MlpEstimate {
  double kept, work;
};

/// Of one layer on one step; `features`: kept of sparse ones.
MlpEstimate estimate_mlp(MlpStep kind, const SparsityConfig::Mlp& config, const TransformerShape& shape, int layer,
                         double features) {
  const bool is_sparse_layer = config.is_enabled && layer >= config.first_n_dense_layers;
  TransformerShape sparse = shape, dense = shape;
  dense.tokens = is_sparse_layer && !config.include_text && layer < shape.text_mlp_layers ? shape.text_tokens : 0;
  sparse.tokens -= dense.tokens;
  const MlpStep dense_kind = kind == MlpStep::kSkip ? MlpStep::kSkip : MlpStep::kFull;
  const double kept = fraction_computed(kind, features) * static_cast<double>(sparse.tokens) +
                      fraction_computed(dense_kind, 1.0) * static_cast<double>(dense.tokens);
  return {kept / static_cast<double>(shape.tokens),
          mlp_work(kind, sparse, features, is_sparse_layer) + mlp_work(dense_kind, dense, 1.0, false)};
}

}  // namespace

double attention_work(AttentionStep kind, const TransformerShape& shape, double kept) {
  const double heads = static_cast<double>(shape.num_heads), n = static_cast<double>(shape.tokens);
  const double head_dim = static_cast<double>(shape.head_dim);
  const double dense = 2.0 * heads * n * n * head_dim;
  const double sparse = dense * kept + heads * n * head_dim;
  switch (kind) {
    case AttentionStep::kDense: return dense;
    case AttentionStep::kRefresh:
      return dense + sparse + heads * n * n + heads * groups_of(shape.tokens, shape.group_size) * n;
    case AttentionStep::kRecache: return dense + sparse;
    case AttentionStep::kSparse: return sparse;
    case AttentionStep::kSkip: return 0.0;
  }
  return 0.0;
}

double mlp_work(MlpStep kind, const TransformerShape& shape, double kept, bool renews) {
  const double n = static_cast<double>(shape.tokens), channels = static_cast<double>(shape.channels);
  const double features = static_cast<double>(shape.mlp_features);
  const double blocks = groups_of(shape.tokens, shape.block_size);
  const double dense = 2.0 * n * channels * features;
  const double sparse = dense * kept + n * features * kept + n * channels;
  switch (kind) {
    case MlpStep::kFull: return dense + (renews ? n * features : 0.0);
    case MlpStep::kSparseSelect: return sparse + n * channels + blocks * channels * features + 2.0 * blocks * features;
    case MlpStep::kSparseReuse: return sparse;
    case MlpStep::kSkip: return 0.0;
  }
  return 0.0;
}

double expected_columns_kept(const SparsityConfig::Attn& attn, const TransformerShape& shape,
                             std::span<const int64_t> static_counts) {
  check(shape);
  const double n = static_cast<double>(shape.tokens);
  const int64_t top_k = top_k_count(attn.top_keys, shape.tokens);
  const double top = static_cast<double>(top_k) / n;
  if (!attn.should_compress_indices) {
    const double text = attn.include_text_columns ? static_cast<double>(shape.text_tokens) / n : 0.0;
    return top + (1.0 - top) * text;
  }
  const double chosen = top + (1.0 - top) * attn.random_keys;
  const int64_t video_tokens = shape.tokens - shape.text_tokens;
  const ColumnRule rule{top_k, static_cast<int64_t>(attn.top_keys * static_cast<double>(video_tokens))};
  const auto kept_beside = [&](int64_t static_count) {
    const double fixed = static_cast<double>(static_count) / n;
    const bool chooses = top_k == shape.tokens || (top_k > 0 && has_room(rule, static_count, shape.tokens));
    return chooses ? fixed + (1.0 - fixed) * chosen : fixed;
  };
  if (static_counts.empty()) return kept_beside(0);
  double sum = 0.0;
  for (int64_t count : static_counts) sum += kept_beside(count);
  return sum / static_cast<double>(static_counts.size());
}

double expected_features_kept(const SparsityConfig::Mlp& mlp, int64_t num_features) {
  if (num_features < 1) throw Error(ErrorCode::kInvalidArgument, "expected hidden features", "work estimate");
  if (!mlp.top_keys) return 1.0;
  const double top =
      static_cast<double>(top_feature_count(*mlp.top_keys, num_features)) / static_cast<double>(num_features);
  return top + (1.0 - top) * mlp.random_keys;
}

std::vector<StepEstimate> estimate_work(const DenoisingSchedule& schedule, const SparsityConfig& config,
                                        const TransformerShape& shape, std::span<const int64_t> static_counts) {
  check(shape);
  const double columns = config.attn.is_enabled ? expected_columns_kept(config.attn, shape, static_counts) : 1.0;
  const double features = config.mlp.is_enabled ? expected_features_kept(config.mlp, shape.mlp_features) : 1.0;
  const double invocations = config.num_model_invocations_per_inference_step;
  const double layers = shape.num_layers;
  const double dense_layer =
      attention_work(AttentionStep::kDense, shape, 1.0) + mlp_work(MlpStep::kFull, shape, 1.0, false);
  std::vector<StepEstimate> estimates;
  for (const Step& step : schedule.steps()) {
    StepEstimate estimate{0.0, 0.0, 0.0, dense_layer * layers * invocations};
    for (int layer = 0; layer < shape.num_layers; ++layer) {
      const AttentionStep attention = schedule.attention_kind(step.index, layer);
      const MlpEstimate mlp = estimate_mlp(schedule.mlp_kind(step.index, layer), config.mlp, shape, layer, features);
      estimate.attention_kept += fraction_read(attention, columns) / layers;
      estimate.mlp_kept += mlp.kept / layers;
      estimate.work += invocations * (attention_work(attention, shape, columns) + mlp.work);
    }
    estimates.push_back(estimate);
  }
  return estimates;
}

double share_of_dense_work(std::span<const StepEstimate> steps) {
  double work = 0.0, dense_work = 0.0;
  for (const StepEstimate& step : steps) {
    work += step.work;
    dense_work += step.dense_work;
  }
  return dense_work > 0.0 ? work / dense_work : 1.0;
}

}  // namespace chipmunk
