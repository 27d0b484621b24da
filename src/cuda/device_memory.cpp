#include "cuda/device_memory.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "chipmunk/error.h"
#include "core/memory_text.h"
#include "cuda/cuda_error.h"

namespace chipmunk::cuda {

DeviceMemory::DeviceMemory(std::shared_ptr<Streams> streams, size_t limit_bytes) : streams_(std::move(streams)) {
  statistics_.limit_bytes = limit_bytes;
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = streams_->index;
  check(cudaMemPoolCreate(&pool_, &properties), "cudaMemPoolCreate");
  // Freed memory stays in the pool at synchronisation: taking it back from the driver costs milliseconds.
  uint64_t keep_everything = UINT64_MAX;
  check(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep_everything), "cudaMemPoolSetAttribute");
}

DeviceMemory::~DeviceMemory() {
  if (pool_ != nullptr) cudaMemPoolDestroy(pool_);
}

std::shared_ptr<Storage> DeviceMemory::allocate(size_t bytes) {
  void* data = take(bytes);
  return std::make_shared<Storage>(data, bytes, Device{DeviceKind::kCuda, streams_->index},
                                   [memory = shared_from_this(), data, bytes] { memory->release(data, bytes); });
}

void* DeviceMemory::take(size_t bytes) {
  select_device(streams_->index);
  const Device device{DeviceKind::kCuda, streams_->index};
  const std::lock_guard lock(mutex_);
  if (statistics_.limit_bytes != 0 && statistics_.current_bytes + bytes > statistics_.limit_bytes) {
    throw over_memory_limit(device, bytes, statistics_);
  }
  void* data = nullptr;
  // An empty tensor has an address, too.
  const size_t size = std::max<size_t>(bytes, 1);
  cudaError_t status = cudaMallocFromPoolAsync(&data, size, pool_, streams_->compute);
  if (status == cudaErrorMemoryAllocation) {
    // What the pool holds back in pieces of other sizes may make room.
    cudaGetLastError();
    trim_locked();
    status = cudaMallocFromPoolAsync(&data, size, pool_, streams_->compute);
  }
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t available = 0, total = 0;
    cudaMemGetInfo(&available, &total);
    throw Error(ErrorCode::kOutOfMemory, "allocating " + format_bytes(bytes) + " on " + to_string(device) +
                                             " failed (" + format_bytes(statistics_.current_bytes) + " in use, " +
                                             format_bytes(available) + " of " + format_bytes(total) +
                                             " free on the device)");
  }
  check(status, "cudaMallocFromPoolAsync");
  statistics_.current_bytes += bytes;
  statistics_.peak_bytes = std::max(statistics_.peak_bytes, statistics_.current_bytes);
  return data;
}

void DeviceMemory::release(void* data, size_t bytes) {
  const std::lock_guard lock(mutex_);
  // A failure here was reported by the work before it, or will be by the next.
  cudaFreeAsync(data, streams_->compute);
  statistics_.current_bytes -= bytes;
}

MemoryStatistics DeviceMemory::statistics() const {
  const std::lock_guard lock(mutex_);
  return statistics_;
}

void DeviceMemory::reset_peak() {
  const std::lock_guard lock(mutex_);
  statistics_.peak_bytes = statistics_.current_bytes;
}

void DeviceMemory::trim() {
  select_device(streams_->index);
  const std::lock_guard lock(mutex_);
  trim_locked();
}

void DeviceMemory::trim_locked() {
  // What was freed in the order of the stream is the pool's only once the stream got there.
  check(cudaStreamSynchronize(streams_->compute), "cudaStreamSynchronize");
  check(cudaMemPoolTrimTo(pool_, 0), "cudaMemPoolTrimTo");
}

}  // namespace chipmunk::cuda
