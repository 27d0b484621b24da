#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <mutex>

#include "core/device_runtime.h"
#include "cuda/cuda_streams.h"

namespace chipmunk::cuda {

/// Device memory from a pool that keeps what is freed, in the order of the compute stream, with a cap and a peak
/// figure.
class DeviceMemory : public std::enable_shared_from_this<DeviceMemory> {
 public:
  /// limit_bytes: 0 for no cap.
  DeviceMemory(std::shared_ptr<Streams> streams, size_t limit_bytes);
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  /// Aligned to 256 bytes. Throws kOutOfMemory, saying what was asked for, what is in use and what limits it.
  std::shared_ptr<Storage> allocate(size_t bytes);
  MemoryStatistics statistics() const;
  void reset_peak();
  /// Gives what the pool keeps and no tensor uses back to the driver. Blocks.
  void trim();

 private:
  void* take(size_t bytes);
  void trim_locked();
  void release(void* data, size_t bytes);

  std::shared_ptr<Streams> streams_;
  cudaMemPool_t pool_ = nullptr;
  mutable std::mutex mutex_;
  MemoryStatistics statistics_;
};

}  // namespace chipmunk::cuda
