#include "models/packed_weights.h"

#include <algorithm>
#include <cstring>

namespace chipmunk {
namespace {

/// Every weight starts where the widest loads and copy engines want it.
constexpr size_t kAlignment = 256;
/// A bus of 55 GB/s moves this in 76 us, ten times as long as it takes to queue the copy.
constexpr size_t kPieceBytes = size_t{4} << 20;

bool is_on_host(const Tensor& tensor) { return tensor.device().kind == DeviceKind::kCpu; }

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

PackedWeights::PackedWeights(const Context& context, const WeightGroup& group) {
  for (Tensor* tensor : group.tensors) {
    if (!is_on_host(*tensor)) continue;
    weights_.push_back({tensor, tensor->is_contiguous() ? *tensor : context.to_host(*tensor), bytes_});
    bytes_ += aligned(tensor->bytes());
  }
}

void PackedWeights::copy(size_t begin, size_t end, void* destination) const {
  for (const Weight& weight : weights_) {
    const size_t from = std::max(begin, weight.offset), to = std::min(end, weight.offset + weight.host.bytes());
    if (from >= to) continue;
    std::memcpy(static_cast<char*>(destination) + (from - begin),
                static_cast<const char*>(weight.host.data()) + (from - weight.offset), to - from);
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

void PackedWeights::move_host(const std::shared_ptr<Storage>& block) {
  for (Weight& weight : weights_) weight.host = Tensor(block, weight.offset, weight.host.dtype(), weight.host.shape());
  bind_host();
}

size_t packed_bytes(const std::vector<WeightGroup>& groups) {
  size_t total = 0;
  for (const WeightGroup& group : groups) {
    for (const Tensor* tensor : group.tensors) total += is_on_host(*tensor) ? aligned(tensor->bytes()) : 0;
  }
  return total;
}

std::vector<BlockPiece> cut_into_pieces(const std::vector<PackedWeights>& blocks) {
  std::vector<BlockPiece> pieces;
  for (size_t block = 0; block < blocks.size(); ++block) {
    const size_t bytes = blocks[block].bytes();
    for (size_t begin = 0; begin < bytes; begin += kPieceBytes) {
      pieces.push_back({block, begin, std::min(begin + kPieceBytes, bytes)});
    }
  }
  return pieces;
}

}  // namespace chipmunk
