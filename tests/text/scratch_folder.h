#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace chipmunk::test {

/// tests/data/golden/<name>
std::filesystem::path golden(const std::string& name);

/// A folder of its own for one test, deleted with it.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  /// Copies the files of a folder into this one.
  void copy_from(const std::filesystem::path& folder) const;
  void write(const std::string& file, std::string_view content) const;
  std::string read(const std::string& file) const;
  void remove(const std::string& file) const;
  /// Replaces the first occurrence of `from`, which must occur.
  void replace(const std::string& file, std::string_view from, std::string_view to) const;

 private:
  std::filesystem::path path_;
};

}  // namespace chipmunk::test
