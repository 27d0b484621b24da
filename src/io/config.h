#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace chipmunk {

/// A JSON object with typed, checked access: the config files of models, schedulers and tokenizers.
///
/// Every accessor throws kInvalidConfig, with the file, the key, what was expected and what was found. The `_or` forms
/// return the fallback if the key is absent or null; a value that is there is checked as usual. Copies share the
/// content, which never changes.
class JsonConfig {
 public:
  static constexpr int64_t kMin = std::numeric_limits<int64_t>::min();
  static constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

  /// Throws kNotFound if there is no such file, kIo if it cannot be read, kInvalidFile with the position if it is not
  /// a JSON object, or has a key twice.
  static JsonConfig load(const std::filesystem::path& path);
  /// The same for text; `where` stands for the file in errors.
  static JsonConfig parse(std::string_view text, const std::string& where);

  /// The file, or what stands for it.
  const std::string& where() const { return where_; }
  /// The keys of this object in alphabetical order.
  std::vector<std::string> keys() const;

  /// The key is there (its value may be null).
  bool has(const std::string& key) const;
  /// The key is there and its value is null.
  bool is_null(const std::string& key) const;
  bool is_list(const std::string& key) const;
  /// A list that holds nothing but strings (or nothing).
  bool is_string_list(const std::string& key) const;
  bool is_object(const std::string& key) const;
  bool is_string(const std::string& key) const;

  /// Integers in [min, max]; 4.0 is not an integer.
  int64_t integer(const std::string& key, int64_t min = kMin, int64_t max = kMax) const;
  int64_t integer_or(const std::string& key, int64_t fallback, int64_t min = kMin, int64_t max = kMax) const;
  /// Finite numbers, integers included.
  double number(const std::string& key) const;
  double number_or(const std::string& key, double fallback) const;
  bool boolean(const std::string& key) const;
  bool boolean_or(const std::string& key, bool fallback) const;
  std::string string(const std::string& key) const;
  std::string string_or(const std::string& key, const std::string& fallback) const;

  /// Lists, every element checked.
  std::vector<int64_t> integers(const std::string& key, int64_t min = kMin, int64_t max = kMax) const;
  std::vector<int64_t> integers_or(const std::string& key, const std::vector<int64_t>& fallback, int64_t min = kMin,
                                   int64_t max = kMax) const;
  std::vector<double> numbers(const std::string& key) const;
  std::vector<std::string> strings(const std::string& key) const;

  /// A nested object; its errors name the path of keys.
  JsonConfig object(const std::string& key) const;
  /// A list of objects; their errors name the position too.
  std::vector<JsonConfig> objects(const std::string& key) const;

  /// This config with the values of `other` on top: objects merge key by key, anything else is replaced. Errors about
  /// the result name both sources.
  JsonConfig overlaid_with(const JsonConfig& other) const;

  /// Compact JSON text with sorted keys.
  std::string to_json() const;

 private:
  struct Value;  // keeps the JSON library out of this header
  JsonConfig(std::shared_ptr<const Value> value, std::string where, std::string key_path);
  [[noreturn]] void fail(const std::string& key, const std::string& expected) const;

  std::shared_ptr<const Value> value_;
  std::string where_;
  std::string key_path_;  // "a.b." for the object at a.b
};

}  // namespace chipmunk
