#include "models/packed_weights.h"

#include <algorithm>
#include <cstring>
#include <thread>

namespace chipmunk {
namespace {

/// Every weight starts where the widest loads and copy engines want it.
constexpr size_t kAlignment = 256;
constexpr size_t kReaders = 4;
constexpr size_t kMinBytesPerReader = size_t{1} << 20;

bool is_on_host(const Tensor& tensor) { return tensor.device().kind == DeviceKind::kCpu; }

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

PackedWeights::PackedWeights(const Context& context, const WeightGroup& group) {
  for (Tensor* tensor : group.tensors) {
    if (!is_on_host(*tensor)) continue;
    weights_.push_back({tensor, tensor->is_contiguous() ? *tensor : context.to_host(*tensor), block_bytes_});
    block_bytes_ += aligned(tensor->bytes());
    bytes_ += tensor->bytes();
  }
}

void PackedWeights::bind(const std::shared_ptr<Storage>& block) const {
  for (const Weight& weight : weights_) {
    *weight.bound = Tensor(block, weight.offset, weight.host.dtype(), weight.host.shape());
  }
}

void PackedWeights::bind_host() const {
  for (const Weight& weight : weights_) *weight.bound = weight.host;
}

void PackedWeights::move_host(const std::shared_ptr<Storage>& block, const UploadProgress& progress) {
  size_t done = 0;
  for (Weight& weight : weights_) {
    const Tensor moved(block, weight.offset, weight.host.dtype(), weight.host.shape());
    copy_in_parallel(moved.data(), weight.host.data(), weight.host.bytes());
    weight.host = moved;
    *weight.bound = moved;
    done += weight.host.bytes();
    if (progress) progress(done, bytes_);
  }
}

size_t host_bytes(const std::vector<WeightGroup>& groups) {
  size_t total = 0;
  for (const WeightGroup& group : groups) {
    for (const Tensor* tensor : group.tensors) total += is_on_host(*tensor) ? tensor->bytes() : 0;
  }
  return total;
}

void copy_in_parallel(void* destination, const void* source, size_t bytes) {
  auto* to = static_cast<char*>(destination);
  const auto* from = static_cast<const char*>(source);
  const size_t readers = std::clamp<size_t>(bytes / kMinBytesPerReader, 1, kReaders);
  const size_t part = (bytes + readers - 1) / readers;
  std::vector<std::thread> threads;
  for (size_t i = 1; i < readers; ++i) {
    const size_t begin = i * part, end = std::min(begin + part, bytes);
    if (begin < end) threads.emplace_back([=] { std::memcpy(to + begin, from + begin, end - begin); });
  }
  std::memcpy(to, from, std::min(part, bytes));
  for (std::thread& thread : threads) thread.join();
}

}  // namespace chipmunk
