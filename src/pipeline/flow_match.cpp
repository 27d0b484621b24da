#include "pipeline/flow_match.h"

#include <cmath>
#include <string>

#include "chipmunk/error.h"

namespace chipmunk {

std::vector<float> flow_match_sigmas(const FlowMatchConfig& config, int steps, int64_t image_tokens) {
  if (steps < 1) {
    throw Error(ErrorCode::kInvalidArgument, "steps: expected 1 or more, found " + std::to_string(steps));
  }
  const double slope = (config.max_shift - config.base_shift) /
                       static_cast<double>(config.max_image_seq_len - config.base_image_seq_len);
  const double mu = config.base_shift + slope * static_cast<double>(image_tokens - config.base_image_seq_len);
  const float dynamic_factor = static_cast<float>(std::exp(mu));
  const float fixed_factor = static_cast<float>(config.shift);

  std::vector<float> sigmas;
  for (int i = 0; i < steps; ++i) {
    // linspace(1, 1/steps, steps), rounded to f32 once.
    const double last = 1.0 / steps;
    const double position = steps == 1 ? 0.0 : static_cast<double>(i) / (steps - 1);
    const float sigma = static_cast<float>(1.0 + (last - 1.0) * position);
    sigmas.push_back(config.use_dynamic_shifting ? dynamic_factor / (dynamic_factor + (1.0f / sigma - 1.0f))
                                                 : fixed_factor * sigma / (1.0f + (fixed_factor - 1.0f) * sigma));
  }
  sigmas.push_back(0.0f);
  return sigmas;
}

}  // namespace chipmunk
