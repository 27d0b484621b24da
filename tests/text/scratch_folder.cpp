#include "scratch_folder.h"

#include <stdlib.h>

#include <fstream>
#include <iterator>
#include <stdexcept>

namespace chipmunk::test {

std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(CHIPMUNK_TEST_DATA) / "golden" / name;
}

ScratchFolder::ScratchFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "chipmunk-text-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make a folder for the test");
  path_ = name;
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void ScratchFolder::copy_from(const std::filesystem::path& folder) const {
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    // By content: the fixtures may be read-only, and a copy of the file would be so too.
    std::ifstream source(entry.path(), std::ios::binary);
    write(entry.path().filename().string(), std::string(std::istreambuf_iterator<char>(source), {}));
  }
}

void ScratchFolder::write(const std::string& file, std::string_view content) const {
  std::ofstream stream(path_ / file, std::ios::binary | std::ios::trunc);
  stream << content;
  if (!stream.flush()) throw std::runtime_error("cannot write " + file);
}

std::string ScratchFolder::read(const std::string& file) const {
  std::ifstream stream(path_ / file, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

void ScratchFolder::remove(const std::string& file) const { std::filesystem::remove(path_ / file); }

void ScratchFolder::replace(const std::string& file, std::string_view from, std::string_view to) const {
  std::string content = read(file);
  const size_t position = content.find(from);
  if (position == std::string::npos) throw std::runtime_error(file + " does not contain \"" + std::string(from) + "\"");
  write(file, content.replace(position, from.size(), to));
}

}  // namespace chipmunk::test
