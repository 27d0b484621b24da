#pragma once

#include <string>
#include <vector>

#include "sparse/config.h"

namespace chipmunk {

enum class AttentionStep {
  kDense,
  kRefresh,  ///< dense, and new columns are chosen
  kRecache,  ///< dense, with the old columns
  kSparse,
  kSkip,
};
enum class MlpStep { kFull, kSparseSelect, kSparseReuse, kSkip };

/// What one denoising step does. Sigma is the noise level before the step, sigma_next after it.
struct Step {
  int index = 0;
  float sigma = 0.0f, sigma_next = 0.0f;
  /// Of the layers past the first dense ones; see DenoisingSchedule::attention_kind for one layer. kSkip comes for
  /// both together: the transformer does not run.
  AttentionStep attention = AttentionStep::kDense;
  MlpStep mlp = MlpStep::kFull;
  /// Adaptive step caching may turn this step into a skip while running.
  bool may_skip = false;
};

/// The plan of a whole generation, a pure value made before the first step. Every model invocation of a step (one a
/// guidance branch) does the same.
class DenoisingSchedule {
 public:
  /// Every step dense. sigmas: one more than there are steps, the last one where the sampler ends (0).
  /// Throws kInvalidArgument for fewer than two sigmas.
  static DenoisingSchedule dense(const std::vector<float>& sigmas);

  /// The steps of the sparse method. num_layers: transformer layers, counted through all kinds of blocks.
  /// - Attention: step 0 is dense. Full steps are 0, 1 and every full_step_every-th, or those of full_step_schedule;
  ///   the first one after step 0 refreshes, later ones refresh or, without recompute_mask, recache; the others are
  ///   sparse.
  ///   A full step whose cache no sparse step would read (the next one is full too, or there is none) is dense.
  /// - MLP: every full_step_every-th step is full, or those of its full_step_schedule. The others choose features anew,
  /// except that from step 10 on only
  ///   those on a multiple of block_mask_cache do; the first sparse step always does.
  /// - Skips: the listed steps. Step 0 and steps that renew a cache (refresh, recache, full MLP) are never skipped: a
  ///   listed one runs, with a notice; the adaptive mode may skip neither those nor the last step.
  /// Throws kInvalidArgument for fewer than two sigmas or num_layers < 1, and what SparsityConfig::validate throws.
  static DenoisingSchedule sparse(const std::vector<float>& sigmas, const SparsityConfig& config, int num_layers);

  const std::vector<Step>& steps() const { return steps_; }

  /// What layer `layer` (from 0) does on a step: the first first_n_dense_layers ones are dense wherever the step runs.
  /// Throws kInvalidArgument for a step outside of the schedule or a negative layer.
  AttentionStep attention_kind(int step, int layer) const;
  MlpStep mlp_kind(int step, int layer) const;

  /// Settings that had no effect on this schedule, one line each.
  const std::vector<std::string>& notices() const { return notices_; }

 private:
  const Step& checked_step(int step, int layer) const;

  std::vector<Step> steps_;
  int dense_attention_layers_ = 0, dense_mlp_layers_ = 0;
  std::vector<std::string> notices_;
};

const char* to_string(AttentionStep step);
const char* to_string(MlpStep step);

}  // namespace chipmunk
