#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "core/device_runtime.h"
#include "cuda/cuda_device.h"

namespace chipmunk::cuda {

class DeviceMemory;
class PinnedMemory;
struct Streams;

/// One GPU's memory, its two streams, events and transfers. Device memory comes from a pool of its own in the order of
/// the compute stream, so that neither allocating nor freeing waits; what the copy stream touches must be ordered by
/// events.
class CudaRuntime : public DeviceRuntime {
 public:
  /// memory_limit: bytes, 0 for no cap. Throws kBackendUnavailable where the device is missing or too old.
  CudaRuntime(int index, size_t memory_limit);

  Device device() const override { return {DeviceKind::kCuda, properties_.index}; }
  const DeviceProperties& properties() const { return properties_; }

  std::shared_ptr<Storage> allocate(size_t bytes) override;
  std::shared_ptr<Storage> allocate_pinned(size_t bytes) override;
  MemoryStatistics memory() const override;
  void reset_peak() override;
  void trim() override;

  void copy(void* destination, Device destination_device, const void* source, Device source_device, size_t bytes,
            StreamKind stream) override;
  std::unique_ptr<Event> record(StreamKind stream) override;
  void wait(StreamKind stream, const Event& event) override;
  void synchronize(const Event& event) override;
  double elapsed_ms(const Event& begin, const Event& end) override;
  void synchronize() override;
  void* native_stream(StreamKind stream) const override { return native(stream); }

 private:
  cudaStream_t native(StreamKind stream) const;

  DeviceProperties properties_;
  // Shared with the storages, so that a tensor may outlive its runtime.
  std::shared_ptr<Streams> streams_;
  std::shared_ptr<DeviceMemory> memory_;
  std::shared_ptr<PinnedMemory> pinned_;
};

}  // namespace chipmunk::cuda
