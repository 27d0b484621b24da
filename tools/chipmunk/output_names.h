#pragma once

#include <cstddef>
#include <filesystem>

namespace chipmunk::cli {

/// Where the pictures of a run go: what --output stands for.
class OutputNames {
 public:
  /// output: a file name, a name with %d or %03d, or a folder (existing, or ending in a slash). Throws kInvalidArgument
  /// if it is empty or the name does not end in .png (devices excepted).
  explicit OutputNames(const std::filesystem::path& output);

  /// The file of picture `index` of `count`.
  std::filesystem::path name(size_t index, size_t count) const;

 private:
  std::filesystem::path folder_;
  std::string prefix_, suffix_;  // of the file name, around the number
  size_t digits_ = 0;
  bool always_numbered_ = false;
};

/// Throws kInvalidArgument unless the name ends in .png or stands for a device.
void check_png_name(const std::filesystem::path& path, const char* option);

/// Throws kIo, naming the path and the reason, if a file could not be created or replaced there; leaves no trace.
void check_writable(const std::filesystem::path& path);

}  // namespace chipmunk::cli
