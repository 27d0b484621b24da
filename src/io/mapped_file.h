#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>

#include "core/storage.h"

namespace chipmunk {

/// How a mapped file is going to be read; a hint to the system, never a condition.
enum class AccessPattern { kNormal, kSequential, kRandom, kWillNeed };

/// A file mapped read-only into memory. Pages are read when they are first touched and can be dropped again, so a
/// checkpoint larger than the memory still opens. The file must not be truncated while it is mapped: touching the
/// lost pages would end the program (SIGBUS).
class MappedFile {
 public:
  /// Throws kNotFound if there is no such file, kInvalidFile for a folder or an empty file, kIo if the system refuses
  /// (no permission, no address space).
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  const std::byte* data() const { return static_cast<const std::byte*>(data_); }
  size_t size() const { return size_; }

  void advise(AccessPattern pattern) const;

 private:
  std::filesystem::path path_;
  void* data_ = nullptr;
  size_t size_ = 0;
};

/// The whole mapping as storage for tensors, which then keep the file mapped. Its bytes are read-only.
std::shared_ptr<Storage> as_storage(const std::shared_ptr<const MappedFile>& file);

}  // namespace chipmunk
