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

/// Block means of the pre-activations: the first layer is linear, so they are its values at the block means of x.
Tensor mean_pre_activations(const Context& context, const Tensor& x, const Linear& first, int64_t mean_rows) {
  return ops::block_mean_linear(context, x, mean_rows, first);
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

void SparseMlpState::full(const Context& context, const Tensor& x, const MlpWeights& weights) {
  if (activations_.empty()) {
    activations_ = ops::empty_activations(context, x.dim(0), x.dim(1), weights.first.out_features());
    output_ = context.empty({x.dim(0), x.dim(1), weights.second.out_features()});
  }
  if (activations_.is_contiguous()) {
    ops::linear_into(context, x, weights.first, activations_, {weights.activation, {}, {}});
    ops::linear_into(context, activations_, weights.second, output_, {});
  } else {
    const Tensor activations = ops::linear(context, x, weights.first, {weights.activation, {}, {}});
    ops::linear_into(context, activations, weights.second, output_, {});
    ops::copy_into(context, activations, activations_);
  }
  means_ = ops::to_dense(context, mean_pre_activations(context, x, weights.first, plan_->mean_rows), DType::kF32);
}

void SparseMlpState::choose_features(const Context& context, int step, const Tensor& x, const MlpWeights& weights,
                                     const Tensor& random_features) {
  const int64_t batch = x.dim(0), num_features = weights.first.out_features();
  const int64_t blocks = (x.dim(1) + plan_->block_rows - 1) / plan_->block_rows;
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
  ops::select_features(context, mean_pre_activations(context, x, weights.first, plan_->mean_rows), means_, selection,
                       features_);
}

void SparseMlpState::forward(const Context& context, MlpStep kind, int step, const Tensor& x, const MlpWeights& weights,
                             const Tensor& random_features) {
  if (kind == MlpStep::kSkip) {
    throw Error(ErrorCode::kInvalidArgument, "a skipped step computes no MLP", "sparse MLP");
  }
  if (kind == MlpStep::kFull) {
    full(context, x, weights);
  } else {
    if (activations_.empty()) {
      throw Error(ErrorCode::kInvalidArgument,
                  "a sparse step (" + std::string(to_string(kind)) + ") needs an earlier full step", "sparse MLP");
    }
    // Adaptive step caching may have skipped the step that was to choose first.
    if (kind == MlpStep::kSparseSelect || features_.indices.empty()) {
      choose_features(context, step, x, weights, random_features);
    }
    ops::column_mlp_into(context, x, weights.first, weights.activation, weights.second_transposed, features_,
                         activations_, output_);
  }
}

}  // namespace chipmunk
