#include "support/simulated_device.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <utility>

#include "backend.h"
#include "chipmunk/error.h"
#include "core/memory_text.h"

namespace chipmunk::test {
namespace {

constexpr Device kDevice{DeviceKind::kCuda, 0};
/// Every f32, bf16 and f16 made of these bytes is a NaN.
constexpr unsigned char kUnknownByte = 0xff;

struct SimulatedEvent : Event {
  StreamKind stream = StreamKind::kCompute;
  int64_t position = 0;  // commands of the stream before it
};

const SimulatedEvent& simulated(const Event& event) { return static_cast<const SimulatedEvent&>(event); }

}  // namespace

class SimulatedRuntime : public DeviceRuntime, public std::enable_shared_from_this<SimulatedRuntime> {
 public:
  explicit SimulatedRuntime(size_t limit_bytes) { statistics_.limit_bytes = limit_bytes; }

  Device device() const override { return kDevice; }

  std::shared_ptr<Storage> allocate(size_t bytes) override {
    count_allocation();
    if (statistics_.limit_bytes != 0 && statistics_.current_bytes + bytes > statistics_.limit_bytes) {
      throw over_memory_limit(kDevice, bytes, statistics_);
    }
    const std::shared_ptr<Storage> memory = allocate_host(bytes);
    std::memset(memory->data(), kUnknownByte, bytes);
    statistics_.current_bytes += bytes;
    statistics_.peak_bytes = std::max(statistics_.peak_bytes, statistics_.current_bytes);
    char* data = static_cast<char*>(memory->data());
    blocks_[data] = {bytes, ++compute_position_};
    return std::make_shared<Storage>(data, bytes, kDevice, [self = shared_from_this(), memory] { self->free(memory); });
  }

  std::shared_ptr<Storage> allocate_pinned(size_t bytes) override {
    count_allocation();
    // Handed out again only after the transfers that use it; never, here.
    const std::shared_ptr<Storage>& memory = pinned_.emplace_back(allocate_host(bytes));
    std::memset(memory->data(), kUnknownByte, bytes);
    pinned_bytes_ += bytes;
    return std::make_shared<Storage>(memory->data(), bytes, Device{},
                                     [self = shared_from_this(), bytes] { self->pinned_bytes_ -= bytes; });
  }

  MemoryStatistics memory() const override { return statistics_; }
  void reset_peak() override { statistics_.peak_bytes = statistics_.current_bytes; }

  void copy(void* destination, Device destination_device, const void* source, Device, size_t bytes,
            StreamKind stream) override {
    if (bytes == 0) return;
    auto* to = static_cast<char*>(destination);
    if (stream == StreamKind::kCompute) {
      ++compute_position_;
      std::memmove(to, source, bytes);
      return;
    }
    if (destination_device == kDevice) {
      ++stream_copies_;
      const Block* block = find_block(to);
      if (block == nullptr) {
        violations_.emplace_back("a copy to memory that is not allocated");
        return;
      }
      if (block->last_use > copy_knows_) {
        violations_.emplace_back("a copy to memory that the compute stream may not be done with");
      }
    }
    queue_.push_back({to, static_cast<const char*>(source), bytes});
    ++copies_queued_;
  }

  std::unique_ptr<Event> record(StreamKind stream) override {
    auto event = std::make_unique<SimulatedEvent>();
    event->stream = stream;
    event->position = stream == StreamKind::kCompute ? compute_position_ : copies_queued_;
    return event;
  }

  void wait(StreamKind stream, const Event& event) override {
    const SimulatedEvent& seen = simulated(event);
    if (seen.stream == stream) return;
    if (stream == StreamKind::kCompute) {
      run_copies_before(seen.position);
    } else {
      copy_knows_ = std::max(copy_knows_, seen.position);
    }
  }

  void synchronize(const Event& event) override { wait(StreamKind::kCompute, event); }
  double elapsed_ms(const Event&, const Event&) override { return 0.0; }
  void synchronize() override {
    run_copies_before(copies_queued_);
    copy_knows_ = compute_position_;
  }
  void* native_stream(StreamKind) const override { return nullptr; }

  void use(const Tensor& tensor) {
    ++compute_position_;
    if (Block* block = find_block(static_cast<const char*>(tensor.data()))) block->last_use = compute_position_;
  }
  const std::vector<std::string>& violations() const { return violations_; }
  int stream_copies() const { return stream_copies_; }
  size_t pinned_bytes() const { return pinned_bytes_; }
  int allocations() const { return allocations_; }
  void fail_allocation_after(int count) { failing_allocation_ = allocations_ + count + 1; }

 private:
  struct Block {
    size_t bytes = 0;
    int64_t last_use = 0;  // the compute stream's position then
  };
  struct Copy {
    char* destination;
    const char* source;
    size_t bytes;
  };

  void count_allocation() {
    if (++allocations_ == failing_allocation_) throw Error(ErrorCode::kOutOfMemory, "this allocation was to fail");
  }

  Block* find_block(const char* address) {
    auto block = blocks_.upper_bound(const_cast<char*>(address));
    if (block == blocks_.begin()) return nullptr;
    --block;
    return address < block->first + std::max<size_t>(block->second.bytes, 1) ? &block->second : nullptr;
  }

  void run_copies_before(int64_t position) {
    while (copies_run_ < position) {
      std::memmove(queue_.front().destination, queue_.front().source, queue_.front().bytes);
      queue_.pop_front();
      ++copies_run_;
    }
  }

  void free(const std::shared_ptr<Storage>& memory) {
    char* data = static_cast<char*>(memory->data());
    const bool awaited = std::any_of(queue_.begin(), queue_.end(), [&](const Copy& copy) {
      return copy.destination >= data && copy.destination < data + memory->bytes();
    });
    if (awaited) {
      violations_.emplace_back("memory is given back before the copies to it are done");
      run_copies_before(copies_queued_);
    }
    std::memset(data, kUnknownByte, memory->bytes());
    blocks_.erase(data);
    statistics_.current_bytes -= memory->bytes();
    ++compute_position_;
  }

  MemoryStatistics statistics_;
  std::map<char*, Block> blocks_;
  std::vector<std::shared_ptr<Storage>> pinned_;
  size_t pinned_bytes_ = 0;
  std::deque<Copy> queue_;
  int64_t compute_position_ = 0, copies_queued_ = 0, copies_run_ = 0;
  int64_t copy_knows_ = 0;  // how much of the compute stream the copy stream has waited for
  int stream_copies_ = 0;
  int allocations_ = 0, failing_allocation_ = 0;  // counted from 1; 0: none fails
  std::vector<std::string> violations_;
};

namespace {

/// The CPU's ops, which live as long as the context they came from.
std::shared_ptr<Backend> cpu_backend() {
  const auto owner = std::make_shared<Context>(make_cpu_context({2, 0}));
  return {owner, &owner->backend()};
}

}  // namespace

SimulatedDevice::SimulatedDevice(size_t limit_bytes)
    : runtime_(std::make_shared<SimulatedRuntime>(limit_bytes)), context_(runtime_, cpu_backend(), DType::kF32) {}

void SimulatedDevice::use(const Tensor& tensor) const { runtime_->use(tensor); }
const std::vector<std::string>& SimulatedDevice::violations() const { return runtime_->violations(); }
int SimulatedDevice::stream_copies() const { return runtime_->stream_copies(); }
size_t SimulatedDevice::pinned_bytes() const { return runtime_->pinned_bytes(); }
int SimulatedDevice::allocations() const { return runtime_->allocations(); }
void SimulatedDevice::fail_allocation_after(int count) const { runtime_->fail_allocation_after(count); }

}  // namespace chipmunk::test
