#include "io/config.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "chipmunk/error.h"
#include "io/atomic_file.h"

namespace chipmunk {
namespace {

using Json = nlohmann::json;

// Far above any config or index, far below what would hurt.
constexpr size_t kMaxFileBytes = 256u << 20;
// Deeper than any config; the library's parser and destructor would go on until the stack ends.
constexpr int kMaxDepth = 64;
constexpr size_t kMaxShownChars = 60;

/// A value as it appears in messages, cut to a readable length.
std::string show(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > kMaxShownChars) text = text.substr(0, kMaxShownChars) + "...";
  return text;
}

/// The library's message without its own name and number in front: "parse error at line 1, column 6: ...".
std::string parse_message(const Json::exception& error) {
  const std::string text = error.what();
  const size_t begin = text.find("] ");
  return begin == text.npos ? text : text.substr(begin + 2);
}

std::string range_text(const char* what, int64_t min, int64_t max) {
  if (min == JsonConfig::kMin && max == JsonConfig::kMax) return what;
  if (max == JsonConfig::kMax) return std::string(what) + " of at least " + std::to_string(min);
  return std::string(what) + " in [" + std::to_string(min) + ", " + std::to_string(max) + "]";
}

bool is_integer_in(const Json& value, int64_t min, int64_t max) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(JsonConfig::kMax)) return false;
  const int64_t number = value.get<int64_t>();
  return number >= min && number <= max;
}

bool is_finite_number(const Json& value) { return value.is_number() && std::isfinite(value.get<double>()); }

/// Rejects duplicate keys and bottomless nesting while the library parses.
class StructureGuard {
 public:
  explicit StructureGuard(const std::string& where) : where_(where) {}

  bool operator()(int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxDepth) throw Error(ErrorCode::kInvalidFile, "the JSON is nested too deeply", where_);
    if (event == Json::parse_event_t::object_start) {
      keys_.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      keys_.pop_back();
    } else if (event == Json::parse_event_t::key && !keys_.back().insert(parsed.get<std::string>()).second) {
      throw Error(ErrorCode::kInvalidFile, "the key " + show(parsed) + " is given twice", where_);
    }
    return true;
  }

 private:
  const std::string& where_;
  std::vector<std::set<std::string>> keys_;
};

void merge_into(Json* target, const Json& source) {
  for (const auto& [key, value] : source.items()) {
    if (value.is_object() && target->contains(key) && (*target)[key].is_object()) {
      merge_into(&(*target)[key], value);
    } else {
      (*target)[key] = value;
    }
  }
}

}  // namespace

struct JsonConfig::Value {
  Json json;

  const Json* find(const std::string& key) const {
    const auto found = json.find(key);
    return found == json.end() ? nullptr : &*found;
  }
  /// Absent and null are alike to the accessors with a fallback.
  bool given(const std::string& key) const {
    const Json* value = find(key);
    return value != nullptr && !value->is_null();
  }
};

JsonConfig::JsonConfig(std::shared_ptr<const Value> value, std::string where, std::string key_path)
    : value_(std::move(value)), where_(std::move(where)), key_path_(std::move(key_path)) {}

JsonConfig JsonConfig::load(const std::filesystem::path& path) {
  return parse(read_file(path, kMaxFileBytes), path.string());
}

JsonConfig JsonConfig::parse(std::string_view text, const std::string& where) {
  // The JSON library takes a NUL for the end of the text.
  if (const size_t nul = text.find('\0'); nul != text.npos) {
    throw Error(ErrorCode::kInvalidFile, "not valid JSON: NUL at byte " + std::to_string(nul), where);
  }
  auto value = std::make_shared<Value>();
  try {
    // The guard is passed by reference: the library copies the callback.
    StructureGuard guard(where);
    value->json = Json::parse(text.begin(), text.end(), std::ref(guard));
  } catch (const Json::exception& error) {
    throw Error(ErrorCode::kInvalidFile, "not valid JSON: " + parse_message(error), where);
  }
  if (!value->json.is_object()) {
    throw Error(ErrorCode::kInvalidFile, "expected a JSON object, found " + show(value->json), where);
  }
  return JsonConfig(std::move(value), where, {});
}

void JsonConfig::fail(const std::string& key, const std::string& expected) const {
  const Json* found = value_->find(key);
  throw Error(ErrorCode::kInvalidConfig,
              "key \"" + key_path_ + key + "\": expected " + expected +
                  (found == nullptr ? ", but the key is missing" : ", found " + show(*found)),
              where_);
}

std::vector<std::string> JsonConfig::keys() const {
  std::vector<std::string> result;
  for (const auto& [key, value] : value_->json.items()) result.push_back(key);
  return result;
}

bool JsonConfig::has(const std::string& key) const { return value_->find(key) != nullptr; }
bool JsonConfig::is_null(const std::string& key) const { return has(key) && value_->find(key)->is_null(); }
bool JsonConfig::is_list(const std::string& key) const { return has(key) && value_->find(key)->is_array(); }
bool JsonConfig::is_string_list(const std::string& key) const {
  if (!is_list(key)) return false;
  const Json& list = *value_->find(key);
  return std::all_of(list.begin(), list.end(), [](const Json& element) { return element.is_string(); });
}
bool JsonConfig::is_object(const std::string& key) const { return has(key) && value_->find(key)->is_object(); }
bool JsonConfig::is_string(const std::string& key) const { return has(key) && value_->find(key)->is_string(); }

int64_t JsonConfig::integer(const std::string& key, int64_t min, int64_t max) const {
  const Json* value = value_->find(key);
  if (value == nullptr || !is_integer_in(*value, min, max)) fail(key, range_text("an integer", min, max));
  return value->get<int64_t>();
}

int64_t JsonConfig::integer_or(const std::string& key, int64_t fallback, int64_t min, int64_t max) const {
  return value_->given(key) ? integer(key, min, max) : fallback;
}

double JsonConfig::number(const std::string& key) const {
  const Json* value = value_->find(key);
  if (value == nullptr || !is_finite_number(*value)) fail(key, "a number");
  return value->get<double>();
}

double JsonConfig::number_or(const std::string& key, double fallback) const {
  return value_->given(key) ? number(key) : fallback;
}

bool JsonConfig::boolean(const std::string& key) const {
  const Json* value = value_->find(key);
  if (value == nullptr || !value->is_boolean()) fail(key, "true or false");
  return value->get<bool>();
}

bool JsonConfig::boolean_or(const std::string& key, bool fallback) const {
  return value_->given(key) ? boolean(key) : fallback;
}

std::string JsonConfig::string(const std::string& key) const {
  const Json* value = value_->find(key);
  if (value == nullptr || !value->is_string()) fail(key, "a string");
  return value->get<std::string>();
}

std::string JsonConfig::string_or(const std::string& key, const std::string& fallback) const {
  return value_->given(key) ? string(key) : fallback;
}

std::vector<int64_t> JsonConfig::integers(const std::string& key, int64_t min, int64_t max) const {
  const Json* value = value_->find(key);
  if (value == nullptr || !value->is_array()) fail(key, "a list of integers");
  for (const Json& element : *value) {
    if (!is_integer_in(element, min, max)) fail(key, range_text("a list, each an integer", min, max));
  }
  return value->get<std::vector<int64_t>>();
}

std::vector<int64_t> JsonConfig::integers_or(const std::string& key, const std::vector<int64_t>& fallback, int64_t min,
                                             int64_t max) const {
  return value_->given(key) ? integers(key, min, max) : fallback;
}

std::vector<double> JsonConfig::numbers(const std::string& key) const {
  const Json* value = value_->find(key);
  if (value == nullptr || !value->is_array()) fail(key, "a list of numbers");
  for (const Json& element : *value) {
    if (!is_finite_number(element)) fail(key, "a list of numbers");
  }
  return value->get<std::vector<double>>();
}

std::vector<std::string> JsonConfig::strings(const std::string& key) const {
  const Json* value = value_->find(key);
  if (!is_string_list(key)) fail(key, "a list of strings");
  return value->get<std::vector<std::string>>();
}

JsonConfig JsonConfig::object(const std::string& key) const {
  const Json* value = value_->find(key);
  if (value == nullptr || !value->is_object()) fail(key, "an object");
  return JsonConfig(std::make_shared<const Value>(Value{*value}), where_, key_path_ + key + ".");
}

std::vector<JsonConfig> JsonConfig::objects(const std::string& key) const {
  const Json* value = value_->find(key);
  const auto is_object_value = [](const Json& element) { return element.is_object(); };
  if (value == nullptr || !value->is_array() || !std::all_of(value->begin(), value->end(), is_object_value)) {
    fail(key, "a list of objects");
  }
  std::vector<JsonConfig> result;
  for (const Json& element : *value) {
    const std::string position = key_path_ + key + "[" + std::to_string(result.size()) + "].";
    result.push_back(JsonConfig(std::make_shared<const Value>(Value{element}), where_, position));
  }
  return result;
}

JsonConfig JsonConfig::overlaid_with(const JsonConfig& other) const {
  auto merged = std::make_shared<Value>(*value_);
  merge_into(&merged->json, other.value_->json);
  return JsonConfig(std::move(merged), where_ + " with " + other.where_, key_path_);
}

std::string JsonConfig::to_json() const { return value_->json.dump(); }

}  // namespace chipmunk
