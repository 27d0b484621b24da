#pragma once

#include <cstddef>
#include <memory>

#include "core/storage.h"

namespace chipmunk {

/// Where commands of a device queue up. The CPU executes at once and ignores it.
enum class StreamKind { kCompute, kCopy };

/// A point in a stream's order of execution that another stream, or the host, can wait for.
class Event {
 public:
  virtual ~Event() = default;
};

struct MemoryStatistics {
  size_t current_bytes = 0;  ///< handed out and not yet returned
  size_t peak_bytes = 0;     ///< the largest current_bytes since the last reset_peak()
  size_t limit_bytes = 0;    ///< the cap, 0 for none
};

/// What a Context needs from a device besides ops: memory, streams, events and transfers.
class DeviceRuntime {
 public:
  virtual ~DeviceRuntime() = default;

  virtual Device device() const = 0;

  /// Memory for tensors, 64-byte aligned at least, in the order of the compute stream: freeing never waits.
  /// Throws kOutOfMemory beyond the cap or when the device has none left. bytes may be 0.
  virtual std::shared_ptr<Storage> allocate(size_t bytes) = 0;
  /// Host memory from a pool that transfers can use directly (page-locked on a GPU). It may be released while a queued
  /// transfer still uses it: it is handed out again only after that.
  virtual std::shared_ptr<Storage> allocate_pinned(size_t bytes) = 0;
  virtual MemoryStatistics memory() const = 0;
  virtual void reset_peak() = 0;
  /// Gives memory that is kept for reuse and not in use back to the system, after everything queued has run. Blocks.
  virtual void trim() {}

  /// Copies between host and device, or within one; returns at once where the device can, so the source must stay
  /// unchanged until the stream has passed it.
  virtual void copy(void* destination, Device destination_device, const void* source, Device source_device,
                    size_t bytes, StreamKind stream) = 0;
  virtual std::unique_ptr<Event> record(StreamKind stream) = 0;
  virtual void wait(StreamKind stream, const Event& event) = 0;
  /// Blocks the host until the event has passed.
  virtual void synchronize(const Event& event) = 0;
  /// Milliseconds between two events that have passed.
  virtual double elapsed_ms(const Event& begin, const Event& end) = 0;
  /// Blocks the host until everything queued on both streams is done.
  virtual void synchronize() = 0;
  /// The native handle (cudaStream_t), or nullptr on the CPU.
  virtual void* native_stream(StreamKind stream) const = 0;
};

/// Host memory and immediate execution. limit_bytes caps what allocate() hands out at one time; 0 for no cap.
std::shared_ptr<DeviceRuntime> make_cpu_runtime(size_t limit_bytes);

}  // namespace chipmunk
