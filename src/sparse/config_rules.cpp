#include "sparse/config_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

namespace chipmunk {
namespace {

bool is_strictly_ascending(const std::vector<int>& values) {
  return std::adjacent_find(values.begin(), values.end(), std::greater_equal<>()) == values.end();
}

bool is_listed_skip(const SparsityConfig::StepCaching& caching, int step) {
  return caching.is_enabled && caching.mode == StepCachingMode::kList &&
         std::binary_search(caching.skip_step_schedule.begin(), caching.skip_step_schedule.end(), step);
}

/// The first step that would be sparse before the first full step after step 0, which chooses the columns.
std::optional<int> first_step_without_columns(const SparsityConfig& config) {
  if (!config.attn.is_enabled || !config.attn.full_step_schedule) return std::nullopt;
  const std::vector<int>& full_steps = *config.attn.full_step_schedule;
  int step = 1;
  while (is_listed_skip(config.step_caching, step)) ++step;
  if (full_steps.size() > 1 && full_steps[1] <= step) return std::nullopt;
  return step;
}

}  // namespace

std::optional<ConfigConflict> find_conflict(const SparsityConfig& config) {
  if (config.mlp.is_enabled && !config.mlp.top_keys) {
    return ConfigConflict{"mlp.top_keys",
                          "expected a number from 0 to 1, found nothing (the section mlp is on unless it says "
                          "is_enabled: false)"};
  }
  const SparsityConfig::Patchify& patchify = config.patchify;
  if (patchify.chunk_size_1 % patchify.chunk_size_2 != 0) {
    return ConfigConflict{"patchify.chunk_size_2", fmt::format("expected a divisor of chunk_size_1 = {}, found {}",
                                                               patchify.chunk_size_1, patchify.chunk_size_2)};
  }
  if (!is_strictly_ascending(config.step_caching.skip_step_schedule)) {
    return ConfigConflict{"step_caching.skip_step_schedule", "expected ascending steps"};
  }
  for (const auto& [path, schedule] : {std::pair("mlp.full_step_schedule", &config.mlp.full_step_schedule),
                                       std::pair("attn.full_step_schedule", &config.attn.full_step_schedule)}) {
    if (!*schedule) continue;
    const std::vector<int>& full_steps = **schedule;
    if (!is_strictly_ascending(full_steps)) return ConfigConflict{path, "expected ascending steps"};
    if (full_steps.empty() || full_steps.front() != 0) {
      return ConfigConflict{path, "expected step 0 in the list: the first step has nothing to build on"};
    }
  }
  if (const std::optional<int> step = first_step_without_columns(config)) {
    return ConfigConflict{"attn.full_step_schedule",
                          fmt::format("expected a second full step by step {}, the first sparse one: it has no "
                                      "columns yet",
                                      *step)};
  }
  return std::nullopt;
}

}  // namespace chipmunk
