#include "models/offloadable_weights.h"

#include <algorithm>
#include <array>
#include <exception>
#include <memory>
#include <utility>

namespace chipmunk {
namespace {

/// Staging buffers: while one is sent, the next is filled from the mapped file.
constexpr size_t kStagingBytes = size_t{64} << 20;
constexpr size_t kStagingBuffers = 3;

/// Sends bytes to device memory in order, through staging buffers that are used in turn.
class Uploader {
 public:
  Uploader(const Context& context, size_t total, const UploadProgress& progress)
      : runtime_(context.runtime()), device_(context.device()), total_(total), progress_(progress) {}

  /// However it ends, what the compute stream does next, and be it to hand the memory out again, comes after the
  /// copies.
  ~Uploader() {
    try {
      runtime_.wait(StreamKind::kCompute, *runtime_.record(StreamKind::kCopy));
    } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch)
      // A device that takes no commands any more runs no copies either.
    }
  }
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;

  /// A block of device memory that the copy stream may write to.
  std::shared_ptr<Storage> allocate(size_t bytes) {
    std::shared_ptr<Storage> block = runtime_.allocate(bytes);
    // Memory is handed out in the order of the compute stream.
    runtime_.wait(StreamKind::kCopy, *runtime_.record(StreamKind::kCompute));
    return block;
  }

  void send(char* destination, const char* source, size_t bytes) {
    while (bytes > 0) {
      Staging& staging = next_free();
      const size_t part = std::min(bytes, kStagingBytes);
      copy_in_parallel(staging.memory->data(), source, part);
      runtime_.copy(destination, device_, staging.memory->data(), Device{}, part, StreamKind::kCopy);
      staging.sent = runtime_.record(StreamKind::kCopy);
      destination += part;
      source += part;
      bytes -= part;
      done_ += part;
      if (progress_) progress_(done_, total_);
    }
  }

 private:
  struct Staging {
    std::shared_ptr<Storage> memory;
    std::unique_ptr<Event> sent;
  };

  Staging& next_free() {
    Staging& staging = staging_[next_++ % kStagingBuffers];
    if (staging.sent != nullptr) runtime_.synchronize(*staging.sent);
    if (staging.memory == nullptr) staging.memory = runtime_.allocate_pinned(std::min(kStagingBytes, total_));
    return staging;
  }

  DeviceRuntime& runtime_;
  Device device_;
  size_t total_, done_ = 0, next_ = 0;
  const UploadProgress& progress_;
  std::array<Staging, kStagingBuffers> staging_;
};

}  // namespace

OffloadableWeights::OffloadableWeights(const Context& context, const std::vector<WeightGroup>& groups)
    : context_(context) {
  if (context.device().kind == DeviceKind::kCpu) return;
  for (const WeightGroup& group : groups) groups_.emplace_back(context, group);
}

size_t OffloadableWeights::bytes() const {
  size_t total = 0;
  for (const PackedWeights& group : groups_) total += group.bytes();
  return total;
}

void OffloadableWeights::upload(const UploadProgress& progress) {
  if (on_device_ || bytes() == 0) return;
  std::vector<std::shared_ptr<Storage>> blocks;
  {
    Uploader uploader(context_, bytes(), progress);
    for (const PackedWeights& group : groups_) {
      const std::shared_ptr<Storage>& block = blocks.emplace_back(uploader.allocate(group.block_bytes()));
      for (const PackedWeights::Weight& weight : group.weights()) {
        uploader.send(static_cast<char*>(block->data()) + weight.offset, static_cast<const char*>(weight.host.data()),
                      weight.host.bytes());
      }
    }
  }
  for (size_t i = 0; i < groups_.size(); ++i) groups_[i].bind(blocks[i]);
  on_device_ = true;
}

void OffloadableWeights::release() {
  if (!on_device_) return;
  for (const PackedWeights& group : groups_) group.bind_host();
  on_device_ = false;
}

}  // namespace chipmunk
