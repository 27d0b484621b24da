#include "sparse/yaml_tree.h"

#include <yaml-cpp/yaml.h>

#include <utility>

#include "chipmunk/error.h"

namespace chipmunk {
namespace {

constexpr size_t kMaxBytes = size_t{1} << 20;
constexpr int kMaxDepth = 8;
constexpr int kMaxValues = 100000;

constexpr const char* kSetTag = "tag:yaml.org,2002:set";
// The tag that the library gives to scalars in quotes.
constexpr const char* kQuotedTag = "!";

std::string at_line(const std::string& where, int line) { return where + ":" + std::to_string(line); }

int line_of(const YAML::Mark& mark) { return mark.is_null() ? 1 : mark.line + 1; }

class Converter {
 public:
  explicit Converter(const std::string& where) : where_(where) {}

  YamlValue convert(const YAML::Node& node, int depth) {
    YamlValue value;
    value.line = line_of(node.Mark());
    if (depth > kMaxDepth || ++num_values_ > kMaxValues) fail(value.line, "too deep or too large for a configuration");
    switch (node.Type()) {
      case YAML::NodeType::Undefined:
      case YAML::NodeType::Null: break;
      case YAML::NodeType::Scalar:
        value.kind = YamlValue::Kind::kScalar;
        value.text = node.Scalar();
        value.quoted = node.Tag() == kQuotedTag;
        break;
      case YAML::NodeType::Sequence:
        value.kind = YamlValue::Kind::kList;
        for (const YAML::Node& item : node) value.items.push_back(convert(item, depth + 1));
        break;
      case YAML::NodeType::Map: convert_map(node, depth, value); break;
    }
    return value;
  }

 private:
  void convert_map(const YAML::Node& node, int depth, YamlValue& value) {
    const bool is_set = node.Tag() == kSetTag;
    value.kind = is_set ? YamlValue::Kind::kSet : YamlValue::Kind::kMap;
    for (const auto& entry : node) {
      YamlValue key = convert(entry.first, depth + 1);
      YamlValue content = convert(entry.second, depth + 1);
      if (key.kind != YamlValue::Kind::kScalar) fail(key.line, "expected a name as key, found " + key.describe());
      if (is_set) {
        if (content.kind != YamlValue::Kind::kNull) {
          fail(key.line, "expected the members of a !!set to have no values, found " + content.describe());
        }
        value.items.push_back(std::move(key));
        continue;
      }
      // Later entries would win in some readers and lose in others.
      for (const YamlValue& earlier : value.keys) {
        if (earlier.text == key.text) {
          fail(key.line, "key " + key.text + " is given twice, first on line " + std::to_string(earlier.line));
        }
      }
      value.keys.push_back(std::move(key));
      value.items.push_back(std::move(content));
    }
  }

  [[noreturn]] void fail(int line, const std::string& message) const {
    throw Error(ErrorCode::kInvalidFile, message, at_line(where_, line));
  }

  const std::string& where_;
  int num_values_ = 0;
};

}  // namespace

std::string YamlValue::describe() const {
  switch (kind) {
    case Kind::kNull: return "null";
    case Kind::kScalar: {
      constexpr size_t kLongest = 60;
      return quoted || text.size() > kLongest ? "the string \"" + text.substr(0, kLongest) + "\"" : text;
    }
    case Kind::kList: return "a list";
    case Kind::kSet: return "a set";
    case Kind::kMap: return "a mapping";
  }
  return "?";
}

YamlValue parse_yaml(std::string_view text, const std::string& where) {
  if (text.size() > kMaxBytes) {
    throw Error(ErrorCode::kInvalidFile, "expected at most " + std::to_string(kMaxBytes) + " bytes", where);
  }
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    if (documents.size() > 1) {
      throw Error(ErrorCode::kInvalidFile, "expected one YAML document, found " + std::to_string(documents.size()),
                  where);
    }
    if (documents.empty()) return YamlValue{YamlValue::Kind::kNull, 1, false, {}, {}, {}};
    return Converter(where).convert(documents.front(), 0);
  } catch (const YAML::Exception& error) {
    throw Error(ErrorCode::kInvalidFile, "not valid YAML: " + error.msg, at_line(where, line_of(error.mark)));
  }
}

}  // namespace chipmunk
