#include <atomic>
#include <chrono>
#include <cstring>

#include "core/device_runtime.h"
#include "core/memory_text.h"

namespace chipmunk {
namespace {

/// Bytes in use; shared with every storage so that a tensor may outlive its runtime.
struct Usage {
  std::atomic<size_t> current{0};
  std::atomic<size_t> peak{0};

  void add(size_t bytes) {
    const size_t now = current += bytes;
    size_t seen = peak.load();
    while (seen < now && !peak.compare_exchange_weak(seen, now)) {
    }
  }
};

/// Commands run at once, so an event is the moment of its making.
class CpuEvent : public Event {
 public:
  std::chrono::steady_clock::time_point time() const { return time_; }

 private:
  std::chrono::steady_clock::time_point time_ = std::chrono::steady_clock::now();
};

class CpuRuntime : public DeviceRuntime {
 public:
  explicit CpuRuntime(size_t limit_bytes) : limit_bytes_(limit_bytes), usage_(std::make_shared<Usage>()) {}

  Device device() const override { return {}; }

  std::shared_ptr<Storage> allocate(size_t bytes) override {
    if (limit_bytes_ != 0 && usage_->current + bytes > limit_bytes_) throw over_memory_limit({}, bytes, memory());
    try {
      std::shared_ptr<Storage> storage = allocate_host(bytes, [bytes, usage = usage_] { usage->current -= bytes; });
      usage_->add(bytes);
      return storage;
    } catch (const Error& error) {
      throw Error(error.code(), error.what() + (" (" + format_bytes(usage_->current) + " in use)"));
    }
  }

  std::shared_ptr<Storage> allocate_pinned(size_t bytes) override { return allocate(bytes); }

  MemoryStatistics memory() const override { return {usage_->current, usage_->peak, limit_bytes_}; }
  void reset_peak() override { usage_->peak = usage_->current.load(); }

  void copy(void* destination, Device, const void* source, Device, size_t bytes, StreamKind) override {
    if (bytes != 0) std::memmove(destination, source, bytes);
  }
  std::unique_ptr<Event> record(StreamKind) override { return std::make_unique<CpuEvent>(); }
  void wait(StreamKind, const Event&) override {}
  void synchronize(const Event&) override {}
  double elapsed_ms(const Event& begin, const Event& end) override {
    const auto time = [](const Event& event) { return static_cast<const CpuEvent&>(event).time(); };
    return std::chrono::duration<double, std::milli>(time(end) - time(begin)).count();
  }
  void synchronize() override {}
  void* native_stream(StreamKind) const override { return nullptr; }

 private:
  size_t limit_bytes_;
  std::shared_ptr<Usage> usage_;
};

}  // namespace

std::shared_ptr<DeviceRuntime> make_cpu_runtime(size_t limit_bytes) {
  return std::make_shared<CpuRuntime>(limit_bytes);
}

}  // namespace chipmunk
