#pragma once

#include <cstdint>
#include <vector>

namespace chipmunk {

/// FlowMatchEulerDiscreteScheduler's settings, names and defaults as in diffusers' scheduler_config.json.
struct FlowMatchConfig {
  int64_t num_train_timesteps = 1000;
  double shift = 1.0;
  bool use_dynamic_shifting = false;
  double base_shift = 0.5, max_shift = 1.15;
  int64_t base_image_seq_len = 256, max_image_seq_len = 4096;
};

/// The noise levels of a run: steps + 1 values from about 1 down to exactly 0.
/// sigmas = linspace(1, 1/steps, steps), shifted by exp(mu) with mu linear in image_tokens (dynamic; not clamped above
/// max_image_seq_len) or by the fixed `shift`, in f32 as diffusers does. Throws kInvalidArgument for steps < 1.
std::vector<float> flow_match_sigmas(const FlowMatchConfig& config, int steps, int64_t image_tokens);

}  // namespace chipmunk
