#include "io/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <fstream>
#include <system_error>
#include <utility>

#include "chipmunk/error.h"

namespace chipmunk {
namespace {

namespace fs = std::filesystem;

// Large enough that a system call per block costs nothing, small enough to forget about.
constexpr size_t kBufferBytes = 1 << 16;
constexpr int kNameAttempts = 100;
constexpr size_t kKeptNameBytes = 200;

/// The file that a name stands for: links resolved, so that a rename replaces the file and not the link.
fs::path resolve(const fs::path& path) {
  std::error_code error;
  fs::path resolved = fs::weakly_canonical(path, error);
  return error ? path : resolved;
}

/// A name beside `path` that no other file of this process asks for. A long name is cut: with the additions it could
/// exceed what the file system allows.
fs::path temporary_name(const fs::path& path) {
  static std::atomic<unsigned> counter{0};  // only keeps names apart
  const std::string suffix = "." + std::to_string(::getpid()) + "." + std::to_string(counter++) + ".tmp";
  return path.parent_path() / ("." + path.filename().string().substr(0, kKeptNameBytes) + suffix);
}

}  // namespace

AtomicFile::AtomicFile(const fs::path& path) : path_(path) {
  struct stat status{};
  const bool exists = ::stat(path.c_str(), &status) == 0;
  if (exists && S_ISDIR(status.st_mode)) fail("cannot write the file", EISDIR);
  if (exists && !S_ISREG(status.st_mode)) {
    file_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (file_ < 0) fail("cannot open the file for writing", errno);
    return;
  }
  // Renaming would replace a file that is protected against writing; that is not what its owner asked for.
  if (exists && ::access(path.c_str(), W_OK) != 0) fail("cannot write the file", errno);
  path_ = resolve(path);
  for (int attempt = 0; attempt < kNameAttempts && file_ < 0; ++attempt) {
    temporary_ = temporary_name(path_);
    file_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file_ < 0 && errno != EEXIST) break;
  }
  if (file_ < 0) {
    temporary_.clear();
    fail("cannot create the file", errno);
  }
}

AtomicFile::~AtomicFile() { discard(); }

void AtomicFile::write(const void* data, size_t bytes) {
  if (file_ < 0) throw Error(ErrorCode::kInternal, "write after the file was closed", path_.string());
  if (buffer_.size() + bytes > kBufferBytes) flush();
  if (bytes > kBufferBytes) {
    write_out(static_cast<const char*>(data), bytes);
  } else {
    buffer_.append(static_cast<const char*>(data), bytes);
  }
}

void AtomicFile::commit() {
  if (file_ < 0) throw Error(ErrorCode::kInternal, "commit after the file was closed", path_.string());
  flush();
  // Some file systems report a full disk only here.
  if (::close(std::exchange(file_, -1)) != 0) fail("cannot finish the file", errno);
  if (temporary_.empty()) return;
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot give the file its name", errno);
  temporary_.clear();
}

void AtomicFile::flush() {
  write_out(buffer_.data(), buffer_.size());
  buffer_.clear();
}

void AtomicFile::write_out(const char* data, size_t bytes) {
  while (bytes > 0) {
    const ssize_t written = ::write(file_, data, bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("cannot write the file", errno);
    data += written;
    bytes -= static_cast<size_t>(written);
  }
}

void AtomicFile::discard() noexcept {
  if (file_ >= 0) ::close(std::exchange(file_, -1));
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
}

void AtomicFile::fail(const char* action, int error) {
  discard();
  throw Error(ErrorCode::kIo, std::string(action) + ": " + std::generic_category().message(error), path_.string());
}

void write_file(const fs::path& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

std::string read_file(const fs::path& path, size_t max_bytes) {
  const std::string where = path.string();
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) throw Error(ErrorCode::kNotFound, "no such file", where);
  if (fs::is_directory(status)) throw Error(ErrorCode::kInvalidFile, "expected a file, found a folder", where);
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(ErrorCode::kIo, "cannot open the file: " + std::generic_category().message(errno), where);
  std::string content;
  char block[kBufferBytes];
  while (file.read(block, sizeof(block)) || file.gcount() > 0) {
    content.append(block, static_cast<size_t>(file.gcount()));
    if (content.size() > max_bytes) {
      throw Error(ErrorCode::kInvalidFile, "the file is larger than " + std::to_string(max_bytes) + " bytes", where);
    }
  }
  if (file.bad()) throw Error(ErrorCode::kIo, "cannot read the file", where);
  return content;
}

}  // namespace chipmunk
