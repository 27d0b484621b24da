#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#include "chipmunk/device.h"

namespace chipmunk {

/// A block of memory with an owner: an allocation, a mapped file or a foreign (DLPack) buffer.
/// The deleter runs when the last tensor that views it goes away.
class Storage {
 public:
  Storage(void* data, size_t bytes, Device device, std::function<void()> deleter);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  Device device() const { return device_; }

 private:
  void* data_;
  size_t bytes_;
  Device device_;
  std::function<void()> deleter_;
};

/// Uninitialised host memory, aligned to a cache line; on_release runs after it is freed.
/// Throws kOutOfMemory. bytes may be 0.
std::shared_ptr<Storage> allocate_host(size_t bytes, std::function<void()> on_release = {});

}  // namespace chipmunk
