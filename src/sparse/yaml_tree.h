#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace chipmunk {

/// One value of a YAML document with its line, so that the YAML library stays out of what reads configurations.
struct YamlValue {
  enum class Kind { kNull, kScalar, kList, kSet, kMap };

  Kind kind = Kind::kNull;
  int line = 0;         ///< 1 for the first
  bool quoted = false;  ///< a scalar in quotes is a string, whatever it looks like
  std::string text;     ///< of a scalar
  /// Members of a list or !!set, or values of a map, in the order of the file.
  std::vector<YamlValue> items;
  /// Of a map: keys[i] belongs to items[i]. Scalars, none twice.
  std::vector<YamlValue> keys;

  /// As an error says what was found: "abc" in quotes, a list, null, ...
  std::string describe() const;
};

/// The one document of a YAML text. `where` stands for the file in errors: "<where>:<line>: ...".
/// Throws kInvalidFile for broken YAML, several documents, keys that are no scalars, a key given twice, and for
/// documents deeper or larger than any configuration (aliases could make them endless).
YamlValue parse_yaml(std::string_view text, const std::string& where);

}  // namespace chipmunk
