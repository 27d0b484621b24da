#include "core/storage.h"

#include <cstdlib>
#include <string>
#include <utility>

#include "chipmunk/error.h"
#include "core/memory_text.h"

namespace chipmunk {
namespace {

// A cache line, and the width of an AVX-512 register.
constexpr size_t kAlignment = 64;

}  // namespace

Storage::Storage(void* data, size_t bytes, Device device, std::function<void()> deleter)
    : data_(data), bytes_(bytes), device_(device), deleter_(std::move(deleter)) {}

Storage::~Storage() {
  if (deleter_) deleter_();
}

std::shared_ptr<Storage> allocate_host(size_t bytes, std::function<void()> on_release) {
  const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  void* data = std::aligned_alloc(kAlignment, rounded == 0 ? kAlignment : rounded);
  if (data == nullptr) {
    throw Error(ErrorCode::kOutOfMemory, "allocating " + format_bytes(bytes) + " failed: the host has no more memory");
  }
  return std::make_shared<Storage>(data, bytes, Device{}, [data, release = std::move(on_release)] {
    std::free(data);
    if (release) release();
  });
}

}  // namespace chipmunk
