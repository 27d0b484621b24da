#include "workbench.h"

#include <stdlib.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace chipmunk::testing {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLengthBytes = 8;  // in front of a safetensors header, little endian

uint64_t header_length(const std::string& file) {
  uint64_t length = 0;
  std::memcpy(&length, file.data(), kLengthBytes);
  return length;
}

void replace_all(std::string* text, const std::string& from, const std::string& to) {
  for (size_t at = text->find(from); at != text->npos; at = text->find(from, at + to.size())) {
    text->replace(at, from.size(), to);
  }
}

}  // namespace

Workbench::Workbench() : model_(CHIPMUNK_TEST_DATA "/golden/flux-tiny/model") {
  std::string name = (fs::temp_directory_path() / "chipmunk-cli-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot create a temporary folder");
  folder_ = name;
  fs::create_directory(output());
}

Workbench::~Workbench() {
  std::error_code error;
  fs::remove_all(folder_, error);
}

fs::path Workbench::damage(const std::string& relative) {
  if (model_ != folder_ / "model") {
    fs::copy(model_, folder_ / "model", fs::copy_options::recursive);
    model_ = folder_ / "model";
  }
  return model_ / relative;
}

std::vector<std::string> Workbench::expand(std::vector<std::string> arguments) const {
  for (std::string& argument : arguments) {
    replace_all(&argument, "{model}", model().string());
    replace_all(&argument, "{out}", output().string());
    replace_all(&argument, "{tmp}", folder().string());
    replace_all(&argument, "{data}", CHIPMUNK_TEST_DATA);
  }
  return arguments;
}

std::vector<std::string> Workbench::output_names() const {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(output())) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

void write_text(const fs::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  if (!file.flush()) throw std::runtime_error("cannot write " + path.string());
}

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path.string());
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void edit_json(const fs::path& path, const std::function<void(Json&)>& edit) {
  Json json = Json::parse(read_text(path));
  edit(json);
  write_text(path, json.dump());
}

void edit_header(const fs::path& path, const std::function<void(Json&)>& edit) {
  const std::string file = read_text(path);
  Json header = Json::parse(file.substr(kLengthBytes, header_length(file)));
  edit(header);
  replace_header(path, header.dump());
}

void replace_header(const fs::path& path, const std::string& text, uint64_t length) {
  const std::string file = read_text(path);
  const uint64_t told = length == 0 ? text.size() : length;
  std::string changed(reinterpret_cast<const char*>(&told), kLengthBytes);
  changed += text;
  changed += file.substr(kLengthBytes + header_length(file));
  write_text(path, changed);
}

}  // namespace chipmunk::testing
