#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "chipmunk/error.h"

namespace chipmunk {
namespace {

[[noreturn]] void throw_errno(ErrorCode code, const char* action, int error, const std::string& where) {
  throw Error(code, std::string(action) + ": " + std::generic_category().message(error), where);
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int value) : value_(value) {}
  ~FileDescriptor() {
    if (value_ >= 0) ::close(value_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return value_; }

 private:
  int value_;
};

int to_madvise(AccessPattern pattern) {
  switch (pattern) {
    case AccessPattern::kNormal: return MADV_NORMAL;
    case AccessPattern::kSequential: return MADV_SEQUENTIAL;
    case AccessPattern::kRandom: return MADV_RANDOM;
    case AccessPattern::kWillNeed: return MADV_WILLNEED;
  }
  return MADV_NORMAL;
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const std::string where = path.string();
  // Non-blocking, or opening a named pipe would wait for a writer.
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) {
    const bool absent = errno == ENOENT || errno == ENOTDIR;
    throw_errno(absent ? ErrorCode::kNotFound : ErrorCode::kIo, "cannot open the file", errno, where);
  }
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) throw_errno(ErrorCode::kIo, "cannot read the file's size", errno, where);
  if (S_ISDIR(status.st_mode)) throw Error(ErrorCode::kInvalidFile, "expected a file, found a folder", where);
  if (!S_ISREG(status.st_mode)) throw Error(ErrorCode::kInvalidFile, "not a regular file", where);
  if (status.st_size == 0) throw Error(ErrorCode::kInvalidFile, "the file is empty", where);

  const size_t size = static_cast<size_t>(status.st_size);
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) throw_errno(ErrorCode::kIo, "cannot map the file into memory", errno, where);
  data_ = data;
  size_ = size;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

void MappedFile::advise(AccessPattern pattern) const { ::madvise(data_, size_, to_madvise(pattern)); }

std::shared_ptr<Storage> as_storage(const std::shared_ptr<const MappedFile>& file) {
  void* data = const_cast<std::byte*>(file->data());  // Storage has no read-only form; the pages are protected
  return std::make_shared<Storage>(data, file->size(), Device{}, [owner = file] {});
}

}  // namespace chipmunk
