#pragma once

#include <cuda_runtime_api.h>

#include "core/device_runtime.h"

namespace chipmunk::cuda {

/// A runtime on a stream of the caller's, for both kinds of work; scratch memory comes from the device's default pool
/// in its order. Nothing is created, so that one can be made for each call.
class StreamRuntime : public DeviceRuntime {
 public:
  StreamRuntime(int index, cudaStream_t stream) : index_(index), stream_(stream) {}

  Device device() const override { return {DeviceKind::kCuda, index_}; }
  std::shared_ptr<Storage> allocate(size_t bytes) override;
  /// Throws kUnsupported, as all transfers do: the caller's memory is on the device.
  std::shared_ptr<Storage> allocate_pinned(size_t bytes) override;
  MemoryStatistics memory() const override { return {}; }
  void reset_peak() override {}
  void copy(void* destination, Device destination_device, const void* source, Device source_device, size_t bytes,
            StreamKind stream) override;
  std::unique_ptr<Event> record(StreamKind stream) override;
  void wait(StreamKind stream, const Event& event) override;
  void synchronize(const Event& event) override;
  double elapsed_ms(const Event& begin, const Event& end) override;
  void synchronize() override;
  void* native_stream(StreamKind) const override { return stream_; }

 private:
  int index_;
  cudaStream_t stream_;
};

}  // namespace chipmunk::cuda
