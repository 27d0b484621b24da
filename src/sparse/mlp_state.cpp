#include "sparse/mlp_state.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "chipmunk/error.h"
#include "core/column_selection.h"
#include "core/random_columns.h"
#include "ops/elementwise.h"
#include "ops/linear.h"

namespace chipmunk {
namespace {

/// Room for the top-k and as many random features as eight standard deviations above their mean; a block that draws
/// more computes every feature.
int64_t list_capacity(const SparseMlpPlan& plan, int64_t num_features) {
  if (plan.capacity > 0) return plan.capacity;
  const double mean = static_cast<double>(num_features) * plan.random_keys;
  const double random = plan.random_keys > 0.0 ? mean + 8.0 * std::sqrt(mean * (1.0 - plan.random_keys)) + 8.0 : 0.0;
  const int64_t wanted = top_feature_count(plan.top_keys, num_features) + static_cast<int64_t>(random);
  return std::min(wanted + plan.multiple_of - 1, num_features);
}

int64_t blocks_of(const MlpParts& parts, int64_t rows) {
  int64_t blocks = 0;
  for (const MlpPart& part : parts) blocks += (part.tokens + rows - 1) / rows;
  return blocks;
}

/// Block means of the pre-activations: the first layer is linear, so they are its values at the block means of x.
Tensor mean_pre_activations(const Context& context, const Tensor& x, const MlpParts& parts, int64_t mean_rows) {
  const Tensor means =
      context.empty({x.dim(0), blocks_of(parts, mean_rows), parts.front().weights.first.out_features()});
  std::vector<ops::BlockMeanLinearCall> calls;
  int64_t row = 0, mean = 0;
  for (const MlpPart& part : parts) {
    const int64_t end_row = row + part.tokens, end_mean = mean + (part.tokens + mean_rows - 1) / mean_rows;
    calls.push_back({x.slice(1, row, end_row), part.weights.first, means.slice(1, mean, end_mean)});
    row = end_row;
    mean = end_mean;
  }
  ops::block_mean_linear_into(context, calls, mean_rows);
  return means;
}

/// out = layer(x), with each part's own layer.
std::vector<ops::LinearCall> linear_of_parts(const Tensor& x, const MlpParts& parts, Linear MlpWeights::* layer,
                                             Activation activation, const Tensor& out) {
  std::vector<ops::LinearCall> calls;
  int64_t row = 0;
  for (const MlpPart& part : parts) {
    const int64_t end = row + part.tokens;
    calls.push_back({x.slice(1, row, end), part.weights.*layer, out.slice(1, row, end), {activation, {}, {}}});
    row = end;
  }
  return calls;
}

void run(const Context& context, const std::vector<ops::LinearCall>& calls) {
  if (calls.size() == 2) return ops::linear_pair_into(context, calls[0], calls[1]);
  ops::linear_into(context, calls[0]);
}

void check(const Tensor& x, const MlpParts& parts) {
  int64_t tokens = 0;
  bool any_empty = false;
  for (const MlpPart& part : parts) {
    tokens += part.tokens;
    any_empty = any_empty || part.tokens < 1;
  }
  if (parts.empty() || parts.size() > 2 || any_empty || x.rank() != 3 || x.dim(1) != tokens) {
    throw Error(ErrorCode::kShapeMismatch,
                "expected [B, T, C] with the tokens of one or two parts that are not empty, found " +
                    std::to_string(parts.size()) + " parts of " + std::to_string(tokens) + " tokens and " +
                    x.describe(),
                "sparse MLP");
  }
}

}  // namespace

SparseMlpPlan SparseMlpPlan::make(const SparsityConfig::Mlp& config, uint64_t seed) {
  SparseMlpPlan plan;
  plan.top_keys = config.top_keys.value_or(1.0);
  plan.random_keys = config.random_keys;
  plan.seed = seed;
  return plan;
}

SparseMlpState::SparseMlpState(std::shared_ptr<const SparseMlpPlan> plan, int branch, int layer)
    : plan_(std::move(plan)), branch_(branch), layer_(layer) {}

void SparseMlpState::full(const Context& context, const Tensor& x, const MlpParts& parts) {
  const MlpWeights& weights = parts.front().weights;
  const int64_t batch = x.dim(0), tokens = x.dim(1), num_features = weights.first.out_features();
  if (activations_.empty()) {
    activations_ = ops::empty_activations(context, batch, tokens, num_features);
    output_ = context.empty({batch, tokens, weights.second.out_features()});
  }
  const auto first_layer = [&](const Tensor& activations) {
    return linear_of_parts(x, parts, &MlpWeights::first, weights.activation, activations);
  };
  const auto second_layer = [&](const Tensor& activations) {
    return linear_of_parts(activations, parts, &MlpWeights::second, Activation::kNone, output_);
  };
  const bool takes_activations = ops::takes_dense_tokens(context, first_layer(activations_)) &&
                                 ops::takes_dense_tokens(context, second_layer(activations_));
  const Tensor activations = takes_activations ? activations_ : context.empty({batch, tokens, num_features});
  run(context, first_layer(activations));
  run(context, second_layer(activations));
  if (!takes_activations) ops::copy_into(context, activations, activations_);
}

void SparseMlpState::choose_features(const Context& context, int step, const Tensor& x, const MlpParts& parts,
                                     const Tensor& random_features) {
  const int64_t batch = x.dim(0), num_features = parts.front().weights.first.out_features();
  const int64_t blocks = blocks_of(parts, plan_->block_rows);
  if (features_.indices.empty()) {
    features_ = {context.empty({batch, blocks, list_capacity(*plan_, num_features)}, DType::kI32),
                 context.empty({batch, blocks}, DType::kI32), plan_->block_rows};
    if (keep_drift_) drift_ = context.empty({batch, blocks, num_features}, DType::kF32);
  }
  ops::FeatureSelection selection;
  selection.top_k = top_feature_count(plan_->top_keys, num_features);
  selection.multiple_of = plan_->multiple_of;
  selection.means_per_block = plan_->block_rows / plan_->mean_rows;
  selection.random_features = random_features;
  selection.random.seed = plan_->seed;
  selection.random.purpose = RandomPurpose::kMlpFeatures;
  selection.random.step = step;
  selection.random.branch = branch_;
  selection.random.layer = layer_;
  selection.random_threshold = random_threshold(plan_->random_keys);
  selection.drift = drift_;
  ops::select_features(context, mean_pre_activations(context, x, parts, plan_->mean_rows), means_, selection,
                       features_);
}

void SparseMlpState::forward(const Context& context, MlpStep kind, int step, const Tensor& x, const MlpWeights& weights,
                             const Tensor& random_features) {
  forward(context, kind, step, x, MlpParts{{x.rank() == 3 ? x.dim(1) : 0, weights}}, random_features);
}

void SparseMlpState::forward(const Context& context, MlpStep kind, int step, const Tensor& x, const MlpParts& parts,
                             const Tensor& random_features) {
  prepare(context, kind, step, x, parts, random_features);
  compute(context, kind, x, parts);
}

bool SparseMlpState::prepare(const Context& context, MlpStep kind, int step, const Tensor& x, const MlpParts& parts,
                             const Tensor& random_features) {
  check(x, parts);
  if (kind == MlpStep::kSkip) {
    throw Error(ErrorCode::kInvalidArgument, "a skipped step computes no MLP", "sparse MLP");
  }
  if (kind == MlpStep::kFull) {
    means_ = ops::to_dense(context, mean_pre_activations(context, x, parts, plan_->mean_rows), DType::kF32);
    return true;
  }
  if (activations_.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "a sparse step (" + std::string(to_string(kind)) + ") needs an earlier full step", "sparse MLP");
  }
  // Adaptive step caching may have skipped the step that was to choose first.
  if (kind == MlpStep::kSparseReuse && !features_.indices.empty()) return false;
  choose_features(context, step, x, parts, random_features);
  return true;
}

void SparseMlpState::compute(const Context& context, MlpStep kind, const Tensor& x, const MlpParts& parts,
                             bool overlaps_last) {
  if (kind == MlpStep::kFull) return full(context, x, parts);
  std::vector<ops::ColumnMlpPart> layers;
  for (const auto& [tokens, weights] : parts) layers.push_back({tokens, weights.first, weights.second_transposed});
  ops::column_mlp_into(context, x, layers, parts.front().weights.activation, features_, activations_, output_,
                       overlaps_last);
}

}  // namespace chipmunk
