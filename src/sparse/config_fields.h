#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "sparse/config.h"

namespace chipmunk {

/// What a key of the configuration does here.
enum class KeyEffect {
  kFull,
  kNotYet,       ///< will have an effect once what it controls exists
  kFp8,          ///< is decided when a model is loaded, for all its linears
  kInternal,     ///< was a detail of the original's kernels
  kBookkeeping,  ///< was the original's record of a run
};

/// Where a key's value goes: the member itself, or for keys without one only the type that it must have.
struct IgnoredInteger {};
struct IgnoredBoolean {};
template <typename T>
using Member = T& (*)(SparsityConfig&);
using KeyTarget = std::variant<Member<bool>, Member<int>, Member<double>, Member<std::optional<double>>,
                               Member<std::vector<int>>, Member<std::optional<std::vector<int>>>,
                               Member<AttentionCombine>, Member<StepCachingMode>, IgnoredInteger, IgnoredBoolean>;

/// One key of the configuration: the table of them is what the parser, the checks and the printer go by.
struct ConfigField {
  std::string_view section;  ///< empty for the top level
  std::string_view key;
  KeyTarget target;
  double min = 0.0, max = 0.0;  ///< of numbers, and of each element of a list
  KeyEffect effect = KeyEffect::kFull;

  /// "attn.top_keys".
  std::string path() const;
};

/// Every key, section by section in the order in which they are printed, the top level's first.
const std::vector<ConfigField>& config_fields();
/// The section names in the same order.
const std::vector<std::string_view>& config_sections();

/// The known key, as a path, that is most like `key` of `section`: fewest edits, those of the same section first.
std::string nearest_key(std::string_view section, std::string_view key);

/// Levenshtein's distance: insertions, deletions and replacements of one byte.
int edit_distance(std::string_view a, std::string_view b);

}  // namespace chipmunk
