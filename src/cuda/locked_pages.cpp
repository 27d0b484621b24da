#include "cuda/locked_pages.h"

#include <sys/mman.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "core/work_ahead.h"

namespace chipmunk::cuda {
namespace {

/// What a thread touches at once; of less than two, threads gain nothing.
constexpr size_t kPartBytes = size_t{16} << 20;
/// The smallest page that there is.
constexpr size_t kPageBytes = 4096;

/// What Linux can give without swapping; 0 if it does not say.
size_t available_host_bytes() {
  std::ifstream file("/proc/meminfo");
  for (std::string name; file >> name;) {
    size_t kib = 0;
    if (name == "MemAvailable:" && file >> kib) return kib * 1024;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return 0;
}

void touch(char* data, size_t bytes) {
  const size_t parts = (bytes + kPartBytes - 1) / kPartBytes;
  WorkAhead touching(parts, [=](size_t part) {
    const size_t end = std::min((part + 1) * kPartBytes, bytes);
    for (size_t i = part * kPartBytes; i < end; i += kPageBytes) static_cast<volatile char*>(data)[i] = 0;
  });
  touching.allow(parts);
  for (size_t part = 0; part < parts; ++part) touching.await(part);
}

bool register_mapping(size_t bytes, LockedPages* pages) {
  // Touching more than there is would end the program, where cudaHostAlloc returns an error.
  if (bytes < 2 * kPartBytes || bytes > available_host_bytes()) return false;
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return false;
  // Large pages are fewer to bring and to lock. A child process has no use for them.
  ::madvise(data, bytes, MADV_HUGEPAGE);
  ::madvise(data, bytes, MADV_DONTFORK);
  *pages = {data, bytes, true};
  touch(static_cast<char*>(data), bytes);
  if (cudaHostRegister(data, bytes, cudaHostRegisterDefault) == cudaSuccess) return true;
  cudaGetLastError();
  ::munmap(data, bytes);
  return false;
}

}  // namespace

cudaError_t lock_pages(size_t bytes, LockedPages* pages) {
  if (register_mapping(bytes, pages)) return cudaSuccess;
  *pages = {};
  // Not every system registers memory, and this one knows best what is too much.
  const cudaError_t status = cudaHostAlloc(&pages->data, bytes, cudaHostAllocDefault);
  if (status == cudaSuccess) pages->bytes = bytes;
  return status;
}

void unlock_pages(const LockedPages& pages) {
  if (pages.data == nullptr) return;
  if (pages.is_mapping) {
    cudaHostUnregister(pages.data);
    ::munmap(pages.data, pages.bytes);
  } else {
    cudaFreeHost(pages.data);
  }
}

}  // namespace chipmunk::cuda
