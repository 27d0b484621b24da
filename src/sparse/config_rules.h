#pragma once

#include <optional>
#include <string>

#include "sparse/config.h"

namespace chipmunk {

/// Two settings that do not fit together, or one that is missing.
struct ConfigConflict {
  std::string path;  ///< the key to blame, e.g. "attn.full_step_schedule"
  std::string message;
};

/// The first violated rule between values, if any. Assumes that each value is in its own range.
std::optional<ConfigConflict> find_conflict(const SparsityConfig& config);

}  // namespace chipmunk
