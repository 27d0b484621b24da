#include "sparse/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "chipmunk/error.h"
#include "sparse/config_fields.h"
#include "sparse/config_rules.h"

namespace chipmunk {
namespace {

/// A value as YAML text. Not for ignored keys, which have none.
struct YamlText {
  SparsityConfig& config;

  std::string operator()(Member<bool> member) const { return member(config) ? "true" : "false"; }
  std::string operator()(Member<int> member) const { return std::to_string(member(config)); }
  std::string operator()(Member<double> member) const { return fmt::format("{}", member(config)); }
  std::string operator()(Member<std::optional<double>> member) const {
    const std::optional<double>& value = member(config);
    return value ? fmt::format("{}", *value) : "null";
  }
  std::string operator()(Member<std::vector<int>> member) const { return list(member(config)); }
  std::string operator()(Member<std::optional<std::vector<int>>> member) const {
    const std::optional<std::vector<int>>& steps = member(config);
    return steps ? list(*steps) : "null";
  }
  std::string operator()(Member<AttentionCombine> member) const { return to_string(member(config)); }
  std::string operator()(Member<StepCachingMode> member) const { return to_string(member(config)); }
  std::string operator()(IgnoredInteger) const { return {}; }
  std::string operator()(IgnoredBoolean) const { return {}; }

  static std::string list(const std::vector<int>& values) {
    std::string text = "[";
    for (int value : values) text += (text.size() == 1 ? "" : ", ") + std::to_string(value);
    return text + "]";
  }
};

/// The numbers of a member that lie outside of its field's range.
struct OutOfRange {
  SparsityConfig& config;
  const ConfigField& field;

  bool outside(double value) const { return !(value >= field.min && value <= field.max); }  // NaN is outside

  std::optional<double> operator()(Member<int> member) const { return check(member(config)); }
  std::optional<double> operator()(Member<double> member) const { return check(member(config)); }
  std::optional<double> operator()(Member<std::optional<double>> member) const {
    const std::optional<double>& value = member(config);
    return value ? check(*value) : std::nullopt;
  }
  std::optional<double> operator()(Member<std::vector<int>> member) const { return check_all(member(config)); }
  std::optional<double> operator()(Member<std::optional<std::vector<int>>> member) const {
    const std::optional<std::vector<int>>& steps = member(config);
    return steps ? check_all(*steps) : std::nullopt;
  }
  template <typename T>
  std::optional<double> operator()(T) const {
    return std::nullopt;
  }

  std::optional<double> check(double value) const { return outside(value) ? std::optional(value) : std::nullopt; }
  std::optional<double> check_all(const std::vector<int>& values) const {
    const auto found = std::find_if(values.begin(), values.end(), [&](int value) { return outside(value); });
    return found == values.end() ? std::nullopt : std::optional<double>(*found);
  }
};

}  // namespace

SparsityConfig::Offloading SparsityConfig::Offloading::off() {
  Offloading result;
  result.global_disable_offloading = true;
  result.attn_out_cache = result.attn_indices = result.text_encoders = false;
  return result;
}

std::vector<int> SparsityConfig::StepCaching::default_skip_steps() {
  return {7, 11, 13, 14, 15, 17, 18, 19, 21, 22, 23, 25, 26, 27, 29, 31, 33, 34, 35, 37, 38, 39, 41, 42, 43};
}

SparsityConfig SparsityConfig::dense() {
  SparsityConfig config;
  config.attn.is_enabled = config.mlp.is_enabled = false;
  config.patchify.is_enabled = config.step_caching.is_enabled = false;
  config.offloading = Offloading::off();
  return config;
}

void SparsityConfig::validate() const {
  SparsityConfig copy = *this;
  for (const ConfigField& field : config_fields()) {
    if (const std::optional<double> value = std::visit(OutOfRange{copy, field}, field.target)) {
      throw Error(ErrorCode::kInvalidConfig,
                  fmt::format("{}: expected {} to {}, found {}", field.path(), field.min, field.max, *value),
                  "sparsity config");
    }
  }
  if (const std::optional<ConfigConflict> conflict = find_conflict(*this)) {
    throw Error(ErrorCode::kInvalidConfig, conflict->path + ": " + conflict->message, "sparsity config");
  }
}

std::string SparsityConfig::to_yaml() const {
  SparsityConfig copy = *this;
  std::string text;
  std::string_view section;
  for (const ConfigField& field : config_fields()) {
    const std::string value = std::visit(YamlText{copy}, field.target);
    if (value.empty()) continue;
    if (field.section != section) text += fmt::format("{}:\n", field.section);
    section = field.section;
    text += fmt::format("{}{}: {}\n", section.empty() ? "" : "  ", field.key, value);
  }
  return text;
}

const char* to_string(AttentionCombine combine) {
  switch (combine) {
    case AttentionCombine::kDifference: return "difference";
    case AttentionCombine::kMerge: return "merge";
  }
  return "?";
}

const char* to_string(StepCachingMode mode) {
  switch (mode) {
    case StepCachingMode::kList: return "list";
    case StepCachingMode::kAdaptive: return "adaptive";
  }
  return "?";
}

}  // namespace chipmunk
