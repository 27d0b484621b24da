#pragma once

#include <vector>

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
  AttentionStep attention = AttentionStep::kDense;
  MlpStep mlp = MlpStep::kFull;
};

/// The plan of a whole generation, a pure value made before the first step.
class DenoisingSchedule {
 public:
  /// Every step dense. sigmas: one more than there are steps, the last one where the sampler ends (0).
  /// Throws kInvalidArgument for fewer than two sigmas.
  static DenoisingSchedule dense(const std::vector<float>& sigmas);

  const std::vector<Step>& steps() const { return steps_; }

 private:
  std::vector<Step> steps_;
};

const char* to_string(AttentionStep step);
const char* to_string(MlpStep step);

}  // namespace chipmunk
