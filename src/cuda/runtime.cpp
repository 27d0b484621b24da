#include "cuda/runtime.h"

#include "cuda/cuda_error.h"
#include "cuda/cuda_streams.h"
#include "cuda/device_memory.h"
#include "cuda/pinned_memory.h"

namespace chipmunk::cuda {
namespace {

class CudaEvent : public Event {
 public:
  CudaEvent() { check(cudaEventCreate(&event_), "cudaEventCreate"); }
  ~CudaEvent() override { cudaEventDestroy(event_); }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

cudaEvent_t native_event(const Event& event) { return static_cast<const CudaEvent&>(event).get(); }

cudaMemcpyKind copy_kind(Device destination, Device source) {
  const bool to_device = destination.kind == DeviceKind::kCuda;
  const bool from_device = source.kind == DeviceKind::kCuda;
  if (to_device) return from_device ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice;
  return from_device ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost;
}

}  // namespace

CudaRuntime::CudaRuntime(int index, size_t memory_limit)
    : properties_(query_device(index)),
      streams_(std::make_shared<Streams>(index)),
      memory_(std::make_shared<DeviceMemory>(streams_, memory_limit)),
      pinned_(std::make_shared<PinnedMemory>(streams_)) {}

std::shared_ptr<Storage> CudaRuntime::allocate(size_t bytes) { return memory_->allocate(bytes); }

std::shared_ptr<Storage> CudaRuntime::allocate_pinned(size_t bytes) { return pinned_->allocate(bytes); }

MemoryStatistics CudaRuntime::memory() const { return memory_->statistics(); }

void CudaRuntime::reset_peak() { memory_->reset_peak(); }

void CudaRuntime::trim() {
  synchronize();
  memory_->trim();
  pinned_->trim();
}

void CudaRuntime::copy(void* destination, Device destination_device, const void* source, Device source_device,
                       size_t bytes, StreamKind stream) {
  if (bytes == 0) return;
  select_device(properties_.index);
  check(cudaMemcpyAsync(destination, source, bytes, copy_kind(destination_device, source_device), native(stream)),
        "cudaMemcpyAsync");
}

std::unique_ptr<Event> CudaRuntime::record(StreamKind stream) {
  select_device(properties_.index);
  auto event = std::make_unique<CudaEvent>();
  check(cudaEventRecord(event->get(), native(stream)), "cudaEventRecord");
  return event;
}

void CudaRuntime::wait(StreamKind stream, const Event& event) {
  check(cudaStreamWaitEvent(native(stream), native_event(event), 0), "cudaStreamWaitEvent");
}

void CudaRuntime::synchronize(const Event& event) {
  check(cudaEventSynchronize(native_event(event)), "cudaEventSynchronize");
}

double CudaRuntime::elapsed_ms(const Event& begin, const Event& end) {
  float milliseconds = 0.0f;
  check(cudaEventElapsedTime(&milliseconds, native_event(begin), native_event(end)), "cudaEventElapsedTime");
  return milliseconds;
}

void CudaRuntime::synchronize() {
  select_device(properties_.index);
  check(cudaStreamSynchronize(streams_->compute), "cudaStreamSynchronize");
  check(cudaStreamSynchronize(streams_->copy), "cudaStreamSynchronize");
}

cudaStream_t CudaRuntime::native(StreamKind stream) const {
  return stream == StreamKind::kCompute ? streams_->compute : streams_->copy;
}

}  // namespace chipmunk::cuda
