#include "conformance/case_folder.h"

#include <fstream>
#include <iterator>
#include <sstream>

#include "chipmunk/error.h"

namespace chipmunk::conformance {
namespace {

namespace fs = std::filesystem;

/// Another case's values that a case is to be held against.
struct Reference {
  fs::path folder;
  std::vector<std::string> prefixes;  // empty for all
};

/// Reads "<folder> (<prefix>*, <prefix>*)"; the part in brackets may be absent.
Reference parse_reference(const fs::path& base, const std::string& text) {
  Reference reference;
  const size_t bracket = text.find(" (");
  reference.folder = base / text.substr(0, bracket);
  if (bracket == std::string::npos) return reference;
  std::stringstream list(text.substr(bracket + 2, text.rfind(')') - bracket - 2));
  for (std::string item; std::getline(list, item, ',');) {
    item.erase(0, item.find_first_not_of(' '));
    reference.prefixes.push_back(item.substr(0, item.find('*')));
  }
  return reference;
}

bool matches(const Reference& reference, const std::string& name) {
  if (reference.prefixes.empty()) return true;
  for (const std::string& prefix : reference.prefixes) {
    if (name.starts_with(prefix)) return true;
  }
  return false;
}

std::vector<std::string> load_prompts(const fs::path& path) {
  if (!fs::exists(path)) return {};
  std::ifstream file(path);
  const std::string list((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  return JsonConfig::parse("{\"prompts\": " + list + "}", path.string()).strings("prompts");
}

}  // namespace

CaseFolder CaseFolder::open(const fs::path& path) {
  const JsonConfig json = JsonConfig::load(path / "case.json");
  CaseFolder result(json.has("params") ? json.object("params") : JsonConfig::parse("{}", "params"));
  result.name_ = json.string("case");
  result.model_ = path / json.string_or("model", "model");

  Reference reference{path, {}};
  if (result.params_.has("inputs_and_expected")) {
    reference = parse_reference(path, result.params_.string("inputs_and_expected"));
  }
  result.prompts_ = load_prompts(reference.folder / "prompts.json");
  result.inputs_ = std::make_shared<SafetensorsFile>(reference.folder / "inputs.safetensors");
  const SafetensorsFile expected(reference.folder / "expected.safetensors");
  const JsonConfig tolerances = JsonConfig::load(reference.folder / "case.json").object("expected");
  for (const std::string& name : expected.names()) {
    if (!matches(reference, name)) continue;
    const JsonConfig tolerance = tolerances.object(name);
    result.expected_[name] = {expected.tensor(name), tolerance.number_or("atol", 0.0),
                              tolerance.number_or("rtol", 0.0)};
  }
  if (result.expected_.empty()) {
    throw Error(ErrorCode::kInvalidFile, "the case expects no tensors", path.string());
  }
  return result;
}

const Dims& CaseFolder::expected_shape(const std::string& name) const {
  const auto found = expected_.find(name);
  if (found == expected_.end()) throw Error(ErrorCode::kNotFound, "no expected tensor " + name, name_);
  return found->second.value.shape();
}

}  // namespace chipmunk::conformance
