#pragma once

#include <filesystem>
#include <string>

namespace chipmunk::test {

/// Settings of the sparse method for a small model, in a file that goes with the object: attention and MLPs sparse from
/// the second layer on, full every so many steps.
class SparsityFile {
 public:
  /// more: YAML behind that.
  explicit SparsityFile(int full_step_every, const std::string& more = "");
  ~SparsityFile();
  SparsityFile(const SparsityFile&) = delete;
  SparsityFile& operator=(const SparsityFile&) = delete;

  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace chipmunk::test
