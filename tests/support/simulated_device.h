#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/context.h"

namespace chipmunk::test {

class SimulatedRuntime;

/// A GPU for tests of where weights are and when they get there, without one: memory of its own, which the CPU backend
/// computes in, and two streams. Ops run at once, as early as a device could; what is on the copy stream runs as late
/// as the order of events allows. So a missing wait of the compute stream gives wrong values, fresh and freed memory
/// being NaN. A missing wait of the copy stream, which cannot show in values, is found by bookkeeping.
class SimulatedDevice {
 public:
  /// limit_bytes: 0 for no cap.
  explicit SimulatedDevice(size_t limit_bytes = 0);

  const Context& context() const { return context_; }
  /// For the bookkeeping: an op that reads or writes this memory is queued on the compute stream now.
  void use(const Tensor& tensor) const;
  /// What broke the rules of streams, one line each.
  const std::vector<std::string>& violations() const;
  /// Copies from host memory to the device on the copy stream.
  int stream_copies() const;
  size_t pinned_bytes() const;
  /// Allocations so far, of device and of page-locked memory.
  int allocations() const;
  /// The allocation after that many more throws kOutOfMemory; those after it work.
  void fail_allocation_after(int count) const;

 private:
  std::shared_ptr<SimulatedRuntime> runtime_;
  Context context_;
};

}  // namespace chipmunk::test
