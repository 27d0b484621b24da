#include "sparse/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>

#include "chipmunk/error.h"

namespace chipmunk {
namespace {

constexpr const char* kWhere = "schedule";

// Early steps change much, so until here every sparse MLP step chooses its features anew.
constexpr int kFirstReuseStep = 10;

bool contains(const std::vector<int>& ascending, int step) {
  return std::binary_search(ascending.begin(), ascending.end(), step);
}

/// The kinds of consecutive steps; what a step does can depend on those before it.
class StepPlanner {
 public:
  explicit StepPlanner(const SparsityConfig& config) : config_(config) {}

  /// Fills in what the step does; steps come in order from 0.
  void plan(Step& step, bool is_last) {
    const SparsityConfig::StepCaching& caching = config_.step_caching;
    const AttentionStep attention = attention_at(step.index);
    const bool full_mlp = config_.mlp.full_step_schedule ? contains(*config_.mlp.full_step_schedule, step.index)
                                                         : step.index % config_.mlp.full_step_every == 0;
    const bool renews = step.index == 0 || attention == AttentionStep::kRefresh ||
                        attention == AttentionStep::kRecache || (config_.mlp.is_enabled && full_mlp);
    const bool listed = caching.is_enabled && caching.mode == StepCachingMode::kList &&
                        contains(caching.skip_step_schedule, step.index);
    if (listed && !renews) {
      step.attention = AttentionStep::kSkip;
      step.mlp = MlpStep::kSkip;
      return;
    }
    if (listed) kept_skips_.push_back(step.index);
    step.attention = attention;
    step.mlp = !config_.mlp.is_enabled || full_mlp ? MlpStep::kFull : sparse_mlp_at(step.index);
    chose_columns_ = chose_columns_ || attention == AttentionStep::kRefresh;
    // The last step's error would reach the decoder unattenuated.
    step.may_skip = caching.is_enabled && caching.mode == StepCachingMode::kAdaptive && !renews && !is_last;
  }

  /// Listed skips that were not taken.
  const std::vector<int>& kept_skips() const { return kept_skips_; }

 private:
  AttentionStep attention_at(int step) const {
    const SparsityConfig::Attn& attn = config_.attn;
    if (!attn.is_enabled || step == 0) return AttentionStep::kDense;
    const bool full = attn.full_step_schedule ? contains(*attn.full_step_schedule, step)
                                              : step == 1 || step % attn.full_step_every == 0;
    if (!full) return AttentionStep::kSparse;
    return !chose_columns_ || attn.recompute_mask ? AttentionStep::kRefresh : AttentionStep::kRecache;
  }

  MlpStep sparse_mlp_at(int step) {
    const bool reuse = step >= kFirstReuseStep && step % config_.mlp.block_mask_cache != 0;
    if (reuse && chose_features_) return MlpStep::kSparseReuse;
    chose_features_ = true;
    return MlpStep::kSparseSelect;
  }

  const SparsityConfig& config_;
  bool chose_columns_ = false, chose_features_ = false;
  std::vector<int> kept_skips_;
};

/// Where no sparse step follows before the next full one (or the end), nothing reads what a full step would keep: it
/// is only dense. The columns that have to last (recompute_mask: false) are chosen all the same.
void drop_unread_caches(const SparsityConfig::Attn& attn, std::vector<Step>& steps) {
  bool chose_columns = false;
  for (size_t i = 0; i < steps.size(); ++i) {
    const AttentionStep kind = steps[i].attention;
    if (kind != AttentionStep::kRefresh && kind != AttentionStep::kRecache) continue;
    const bool lasting = kind == AttentionStep::kRefresh && !attn.recompute_mask && !chose_columns;
    chose_columns = true;
    size_t next = i + 1;
    while (next < steps.size() && steps[next].attention == AttentionStep::kSkip) ++next;
    const bool read = next < steps.size() && steps[next].attention == AttentionStep::kSparse;
    if (!read && !lasting) steps[i].attention = AttentionStep::kDense;
  }
}

std::vector<std::string> make_notices(const SparsityConfig& config, int num_layers, const std::vector<int>& kept) {
  std::vector<std::string> notices;
  if (!kept.empty()) {
    std::string steps;
    for (int step : kept) steps += (steps.empty() ? "" : ", ") + std::to_string(step);
    notices.push_back(
        fmt::format("step_caching.skip_step_schedule: not skipped, since caches are renewed there: step {}", steps));
  }
  const auto check_layers = [&](const char* section, bool is_enabled, int dense_layers) {
    if (!is_enabled || dense_layers < num_layers) return;
    notices.push_back(
        fmt::format("{}.first_n_dense_layers = {}: all {} layers stay dense", section, dense_layers, num_layers));
  };
  check_layers("attn", config.attn.is_enabled, config.attn.first_n_dense_layers);
  check_layers("mlp", config.mlp.is_enabled, config.mlp.first_n_dense_layers);
  return notices;
}

}  // namespace

DenoisingSchedule DenoisingSchedule::dense(const std::vector<float>& sigmas) {
  if (sigmas.size() < 2) {
    throw Error(ErrorCode::kInvalidArgument,
                "expected at least two sigmas (one step), found " + std::to_string(sigmas.size()), kWhere);
  }
  DenoisingSchedule schedule;
  for (size_t i = 0; i + 1 < sigmas.size(); ++i) {
    schedule.steps_.push_back({static_cast<int>(i), sigmas[i], sigmas[i + 1]});
  }
  return schedule;
}

DenoisingSchedule DenoisingSchedule::sparse(const std::vector<float>& sigmas, const SparsityConfig& config,
                                            int num_layers) {
  if (num_layers < 1) {
    throw Error(ErrorCode::kInvalidArgument, "expected at least one layer, found " + std::to_string(num_layers),
                kWhere);
  }
  config.validate();
  DenoisingSchedule schedule = dense(sigmas);
  StepPlanner planner(config);
  for (Step& step : schedule.steps_) planner.plan(step, &step == &schedule.steps_.back());
  drop_unread_caches(config.attn, schedule.steps_);
  schedule.dense_attention_layers_ = config.attn.first_n_dense_layers;
  schedule.dense_mlp_layers_ = config.mlp.first_n_dense_layers;
  schedule.notices_ = make_notices(config, num_layers, planner.kept_skips());
  return schedule;
}

const Step& DenoisingSchedule::checked_step(int step, int layer) const {
  if (step < 0 || static_cast<size_t>(step) >= steps_.size() || layer < 0) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("expected a step below {} and a layer, found step {} and layer {}", steps_.size(), step, layer),
        kWhere);
  }
  return steps_[static_cast<size_t>(step)];
}

AttentionStep DenoisingSchedule::attention_kind(int step, int layer) const {
  const AttentionStep kind = checked_step(step, layer).attention;
  return layer < dense_attention_layers_ && kind != AttentionStep::kSkip ? AttentionStep::kDense : kind;
}

MlpStep DenoisingSchedule::mlp_kind(int step, int layer) const {
  const MlpStep kind = checked_step(step, layer).mlp;
  return layer < dense_mlp_layers_ && kind != MlpStep::kSkip ? MlpStep::kFull : kind;
}

const char* to_string(AttentionStep step) {
  switch (step) {
    case AttentionStep::kDense: return "dense";
    case AttentionStep::kRefresh: return "refresh";
    case AttentionStep::kRecache: return "recache";
    case AttentionStep::kSparse: return "sparse";
    case AttentionStep::kSkip: return "skip";
  }
  return "?";
}

const char* to_string(MlpStep step) {
  switch (step) {
    case MlpStep::kFull: return "full";
    case MlpStep::kSparseSelect: return "select";
    case MlpStep::kSparseReuse: return "reuse";
    case MlpStep::kSkip: return "skip";
  }
  return "?";
}

}  // namespace chipmunk
