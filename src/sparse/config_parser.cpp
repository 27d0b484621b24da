#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <fstream>
#include <iterator>
#include <map>
#include <system_error>

#include "chipmunk/error.h"
#include "sparse/config.h"
#include "sparse/config_fields.h"
#include "sparse/config_rules.h"
#include "sparse/yaml_tree.h"

namespace chipmunk {
namespace {

namespace fs = std::filesystem;

using Kind = YamlValue::Kind;

/// The whole text as a number of type T, or nothing.
template <typename T>
std::optional<T> parse_number(const YamlValue& value) {
  if (value.kind != Kind::kScalar || value.quoted) return std::nullopt;
  T number{};
  const char* end = value.text.data() + value.text.size();
  const auto result = std::from_chars(value.text.data(), end, number);
  if (result.ec != std::errc() || result.ptr != end) return std::nullopt;
  return number;
}

/// YAML 1.1's booleans, as the original's reader takes them.
std::optional<bool> parse_boolean(const YamlValue& value) {
  if (value.kind != Kind::kScalar || value.quoted) return std::nullopt;
  for (const char* name : {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"}) {
    if (value.text == name) return true;
  }
  for (const char* name : {"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"}) {
    if (value.text == name) return false;
  }
  return std::nullopt;
}

/// Reads one key's value into the config; what it finds wrong is thrown with file, line and key.
class FieldReader {
 public:
  FieldReader(SparsityConfig& config, const ConfigField& field, const YamlValue& value, const std::string& where)
      : config_(config), field_(field), value_(value), where_(where) {}

  void operator()(Member<bool> member) const { member(config_) = boolean(); }
  void operator()(Member<int> member) const { member(config_) = integer(value_); }
  void operator()(Member<double> member) const { member(config_) = number(); }
  void operator()(Member<std::optional<double>> member) const {
    member(config_) = value_.kind == Kind::kNull ? std::nullopt : std::optional(number());
  }
  void operator()(Member<std::vector<int>> member) const { member(config_) = steps(); }
  void operator()(Member<std::optional<std::vector<int>>> member) const {
    member(config_) = value_.kind == Kind::kNull ? std::nullopt : std::optional(steps());
  }
  void operator()(Member<AttentionCombine> member) const {
    member(config_) = one_of({AttentionCombine::kDifference, AttentionCombine::kMerge});
  }
  void operator()(Member<StepCachingMode> member) const {
    member(config_) = one_of({StepCachingMode::kList, StepCachingMode::kAdaptive});
  }
  void operator()(IgnoredInteger) const { integer(value_); }
  void operator()(IgnoredBoolean) const { boolean(); }

 private:
  [[noreturn]] void fail(const YamlValue& value, const std::string& expected) const {
    throw Error(ErrorCode::kInvalidConfig,
                fmt::format("{}: expected {}, found {}", field_.path(), expected, value.describe()),
                fmt::format("{}:{}", where_, value.line));
  }

  bool boolean() const {
    const std::optional<bool> parsed = parse_boolean(value_);
    if (!parsed) fail(value_, "true or false");
    return *parsed;
  }

  int integer(const YamlValue& value) const {
    const std::optional<int> parsed = parse_number<int>(value);
    if (!parsed || *parsed < field_.min || *parsed > field_.max) {
      fail(value, fmt::format("an integer from {} to {}", field_.min, field_.max));
    }
    return *parsed;
  }

  double number() const {
    const std::optional<double> parsed = parse_number<double>(value_);
    // Written so that NaN fails too.
    if (!parsed || !(*parsed >= field_.min && *parsed <= field_.max)) {
      fail(value_, fmt::format("a number from {} to {}", field_.min, field_.max));
    }
    return *parsed;
  }

  /// A list or set of steps, in ascending order.
  std::vector<int> steps() const {
    if (value_.kind != Kind::kList && value_.kind != Kind::kSet) fail(value_, "a list or !!set of steps");
    std::vector<int> steps;
    for (const YamlValue& item : value_.items) {
      const int step = integer(item);
      if (std::find(steps.begin(), steps.end(), step) != steps.end()) fail(item, "each step once");
      steps.push_back(step);
    }
    std::sort(steps.begin(), steps.end());
    return steps;
  }

  template <typename T>
  T one_of(std::initializer_list<T> choices) const {
    std::string names;
    for (T choice : choices) {
      if (value_.kind == Kind::kScalar && value_.text == to_string(choice)) return choice;
      names += (names.empty() ? "" : " or ") + std::string(to_string(choice));
    }
    fail(value_, names);
  }

  SparsityConfig& config_;
  const ConfigField& field_;
  const YamlValue& value_;
  const std::string& where_;
};

/// One file on its way into a config.
class ConfigParser {
 public:
  ConfigParser(const std::string& where) : where_(where) {}

  SparsityConfig parse(const YamlValue& root) {
    config_.patchify.is_enabled = config_.step_caching.is_enabled = false;
    config_.offloading = SparsityConfig::Offloading::off();
    if (root.kind != Kind::kMap) fail(root.line, "expected sections such as attn and mlp, found " + root.describe());
    for (size_t i = 0; i < root.keys.size(); ++i) {
      const YamlValue& key = root.keys[i];
      const YamlValue& value = root.items[i];
      if (std::find(config_sections().begin(), config_sections().end(), key.text) != config_sections().end()) {
        parse_section(key, value);
      } else {
        parse_key("", key, value);
      }
    }
    if (const std::optional<ConfigConflict> conflict = find_conflict(config_)) {
      fail(line_of(conflict->path), conflict->path + ": " + conflict->message);
    }
    return config_;
  }

  /// One line for each kind of key without effect, and for settings that others switch off.
  std::vector<std::string> notices() const {
    static constexpr std::pair<KeyEffect, const char*> kReasons[] = {
        {KeyEffect::kNotYet, "accepted, without effect in this version"},
        {KeyEffect::kFp8,
         "accepted, without effect: --fp8 computes the model's linears in fp8, the first layer of what sparse steps "
         "renew of an MLP among them"},
        {KeyEffect::kInternal, "accepted, without effect: tile sizes and padding are the kernels' own business"},
        {KeyEffect::kBookkeeping, "accepted, without effect: known from the run itself"}};
    std::vector<std::string> notices;
    for (const auto& [effect, reason] : kReasons) {
      std::string keys;
      for (const ConfigField& field : config_fields()) {
        if (field.effect == effect && lines_.count(field.path()) != 0)
          keys += (keys.empty() ? "" : ", ") + field.path();
      }
      if (!keys.empty()) notices.push_back(fmt::format("{}: {}: {}", where_, keys, reason));
    }
    const bool adaptive = config_.step_caching.mode == StepCachingMode::kAdaptive;
    const std::string idle = adaptive ? "step_caching.skip_step_schedule" : "step_caching.threshold";
    if (lines_.count(idle) != 0) {
      notices.push_back(
          fmt::format("{}: {}: without effect in mode {}", where_, idle, to_string(config_.step_caching.mode)));
    }
    return notices;
  }

 private:
  void parse_section(const YamlValue& name, const YamlValue& section) {
    if (section.kind != Kind::kMap) {
      fail(name.line, name.text + ": expected keys below the section, found " + section.describe());
    }
    const SparsityConfig defaults;
    if (name.text == "patchify") config_.patchify = defaults.patchify;
    if (name.text == "step_caching") config_.step_caching = defaults.step_caching;
    if (name.text == "offloading") config_.offloading = defaults.offloading;
    lines_[name.text] = name.line;
    for (size_t i = 0; i < section.keys.size(); ++i) parse_key(name.text, section.keys[i], section.items[i]);
  }

  void parse_key(const std::string& section, const YamlValue& key, const YamlValue& value) {
    const std::vector<ConfigField>& fields = config_fields();
    const auto field = std::find_if(fields.begin(), fields.end(), [&](const ConfigField& candidate) {
      return candidate.section == section && candidate.key == key.text;
    });
    if (field == fields.end()) {
      fail(key.line, fmt::format("unknown key {}{}{}; the nearest known key is {}", section, section.empty() ? "" : ".",
                                 key.text, nearest_key(section, key.text)));
    }
    lines_[field->path()] = key.line;
    // An absent value has no position of its own.
    YamlValue located = value;
    if (located.kind == Kind::kNull) located.line = key.line;
    std::visit(FieldReader(config_, *field, located, where_), field->target);
  }

  /// Where a key stands, else its section, else the file's start.
  int line_of(const std::string& path) const {
    for (const std::string& name : {path, path.substr(0, path.find('.'))}) {
      const auto found = lines_.find(name);
      if (found != lines_.end()) return found->second;
    }
    return 1;
  }

  [[noreturn]] void fail(int line, const std::string& message) const {
    throw Error(ErrorCode::kInvalidConfig, message, fmt::format("{}:{}", where_, line));
  }

  const std::string& where_;
  SparsityConfig config_;
  std::map<std::string, int> lines_;  // of the sections and keys of the file
};

}  // namespace

SparsityConfig SparsityConfig::parse(std::string_view text, const std::string& where,
                                     std::vector<std::string>* notices) {
  ConfigParser parser(where);
  const SparsityConfig config = parser.parse(parse_yaml(text, where));
  if (notices != nullptr) {
    const std::vector<std::string> found = parser.notices();
    notices->insert(notices->end(), found.begin(), found.end());
  }
  return config;
}

SparsityConfig SparsityConfig::load(const fs::path& path, std::vector<std::string>* notices) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) throw Error(ErrorCode::kNotFound, "no such file", path.string());
  if (!fs::is_regular_file(path, ignored)) throw Error(ErrorCode::kIo, "expected a file", path.string());
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file) throw Error(ErrorCode::kIo, "reading failed", path.string());
  return parse(text, path.string(), notices);
}

}  // namespace chipmunk
