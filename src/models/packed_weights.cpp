#include "models/packed_weights.h"

#include <algorithm>
#include <cstring>

#include "core/fp8_rows.h"

namespace chipmunk {
namespace {

/// Every weight starts where the widest loads and copy engines want it.
constexpr size_t kAlignment = 256;
/// A bus of 55 GB/s moves this in 76 us, ten times as long as it takes to queue the copy.
constexpr size_t kPieceBytes = size_t{4} << 20;

bool is_on_host(const Tensor& tensor) { return tensor.device().kind == DeviceKind::kCpu; }

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

DType PackedWeights::Weight::dtype() const {
  switch (form) {
    case Form::kFp8Values: return DType::kF8E4M3;
    case Form::kFp8Scales: return DType::kF32;
    case Form::kCopy: break;
  }
  return host.dtype();
}

Dims PackedWeights::Weight::shape() const { return form == Form::kFp8Scales ? Dims{host.dim(0)} : host.shape(); }

void PackedWeights::Weight::copy(size_t begin, size_t end, char* destination) const {
  const auto* source = static_cast<const char*>(host.data());
  // Weights that are f8_e4m3 already stay as they are: another scale would round them again.
  const bool is_fp8 = host.dtype() == DType::kF8E4M3;
  if (form == Form::kCopy || (form == Form::kFp8Values && is_fp8)) {
    std::memcpy(destination, source + begin, end - begin);
    return;
  }
  const auto row = [&](int64_t r) { return source + static_cast<size_t>(r * host.dim(1)) * size_of(host.dtype()); };
  if (form == Form::kFp8Scales) {
    for (size_t at = begin; at < end; at += sizeof(float)) {
      const auto r = static_cast<int64_t>(at / sizeof(float));
      const float scale = is_fp8 ? 1.0f : fp8_row_scale(row(r), host.dtype(), host.dim(1)).scale;
      std::memcpy(destination + (at - begin), &scale, sizeof(float));
    }
    return;
  }
  // A byte an element.
  const auto first = static_cast<int64_t>(begin), last = static_cast<int64_t>(end), columns = host.dim(1);
  for (int64_t r = first / columns; r * columns < last; ++r) {
    const int64_t from = std::max(first, r * columns), to = std::min(last, (r + 1) * columns);
    quantize_fp8_row(row(r), host.dtype(), from - r * columns, to - r * columns,
                     fp8_row_scale(row(r), host.dtype(), columns),
                     reinterpret_cast<uint8_t*>(destination) + (from - first));
  }
}

PackedWeights::PackedWeights(const Context& context, const WeightGroup& group) {
  const auto find = [&](Tensor* QuantizedWeight::* member, const Tensor* tensor) {
    const auto found = std::find_if(group.quantized.begin(), group.quantized.end(),
                                    [&](const QuantizedWeight& other) { return other.*member == tensor; });
    return found == group.quantized.end() ? nullptr : &*found;
  };
  for (Tensor* tensor : group.tensors) {
    if (const QuantizedWeight* of = find(&QuantizedWeight::scales, tensor)) {
      if (!of->weight->empty() && is_on_host(*of->weight)) add(tensor, *of->weight, Form::kFp8Scales);
      continue;
    }
    if (tensor->empty() || !is_on_host(*tensor)) continue;
    const bool quantized = find(&QuantizedWeight::weight, tensor) != nullptr;
    add(tensor, *tensor, quantized ? Form::kFp8Values : Form::kCopy);
  }
  for (Weight& weight : weights_) {
    if (!weight.host.is_contiguous()) weight.host = context.to_host(weight.host);
  }
}

void PackedWeights::add(Tensor* bound, const Tensor& host, Form form) {
  weights_.push_back({bound, *bound, host, form, bytes_});
  bytes_ += aligned(weights_.back().bytes());
}

void PackedWeights::copy(size_t begin, size_t end, void* destination) const {
  for (const Weight& weight : weights_) {
    const size_t from = std::max(begin, weight.offset), to = std::min(end, weight.offset + weight.bytes());
    if (from >= to) continue;
    weight.copy(from - weight.offset, to - weight.offset, static_cast<char*>(destination) + (from - begin));
  }
}

void PackedWeights::bind(const std::shared_ptr<Storage>& block) const {
  for (const Weight& weight : weights_) {
    *weight.bound = Tensor(block, weight.offset, weight.dtype(), weight.shape());
  }
}

void PackedWeights::bind_host() const {
  for (const Weight& weight : weights_) *weight.bound = weight.before;
}

void PackedWeights::move_host(const std::shared_ptr<Storage>& block) {
  for (Weight& weight : weights_) {
    weight.before = weight.host = Tensor(block, weight.offset, weight.dtype(), weight.shape());
    weight.form = Form::kCopy;
  }
  bind_host();
}

size_t packed_bytes(const Context& context, const std::vector<WeightGroup>& groups) {
  size_t total = 0;
  for (const WeightGroup& group : groups) total += PackedWeights(context, group).bytes();
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
