#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

namespace chipmunk {

/// A file that appears under its name only when it is complete: it is written under a temporary name in the same
/// folder and renamed by commit(). Without a commit (an exception, a cancelled run) nothing is left behind and a file
/// that had the name before stays as it was. Links are followed; a device or a pipe is written to directly.
/// Every failure throws kIo with the system's reason.
class AtomicFile {
 public:
  /// Creates the temporary file, so that an unwritable place is found before the work is done.
  explicit AtomicFile(const std::filesystem::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  /// Writes out what is buffered, closes and renames. Nothing can be written afterwards.
  void commit();

 private:
  void flush();
  void write_out(const char* data, size_t bytes);
  void discard() noexcept;
  [[noreturn]] void fail(const char* action, int error);

  std::filesystem::path path_;
  std::filesystem::path temporary_;  // empty while writing directly to a device
  int file_ = -1;
  std::string buffer_;
};

/// The whole of a small file in one go, through an AtomicFile.
void write_file(const std::filesystem::path& path, std::string_view content);

/// A whole file. Throws kNotFound if there is none, kInvalidFile for a folder or a file of more than max_bytes, kIo if
/// it cannot be read.
std::string read_file(const std::filesystem::path& path, size_t max_bytes);

}  // namespace chipmunk
