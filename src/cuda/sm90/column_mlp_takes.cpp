#include "cuda/launch.h"
#include "cuda/sm90/column_mlp.h"
#include "cuda/sm90/column_mlp_problem.h"

namespace chipmunk::cuda::sm90 {
namespace {

/// Tokens of a feature's activations that are written at a time.
constexpr int64_t kChunk = 8;

/// Whether the second problem's tensors go on where the first one's end, and its weights are like the first one's.
bool continues(const ColumnMlpParams& p, const ColumnMlpParams& next) {
  const auto goes_on = [](const auto& in, const auto& other, int64_t elements) {
    return in.dtype == other.dtype &&
           static_cast<const char*>(in.data) + elements * static_cast<int64_t>(size_of(in.dtype)) == other.data;
  };
  const int64_t blocks = ceil_div(p.rows, kMlpBlock);
  return p.batch == 1 && next.batch == 1 && p.rows > 0 && next.rows > 0 && p.rows % kChunk == 0 &&
         p.channels == next.channels && p.features == next.features && p.out_channels == next.out_channels &&
         p.block_rows == next.block_rows && p.capacity == next.capacity && p.activation == next.activation &&
         p.weight1.dtype == next.weight1.dtype && p.weight1_row_stride == next.weight1_row_stride &&
         (p.weight1_scale == nullptr) == (next.weight1_scale == nullptr) && p.weight2.dtype == next.weight2.dtype &&
         p.weight2_row_stride == next.weight2_row_stride && p.bias1.dtype == next.bias1.dtype &&
         p.x_row_stride == next.x_row_stride && goes_on(p.x, next.x, p.rows * p.x_row_stride) &&
         p.activation_row_stride == next.activation_row_stride &&
         p.activation_feature_stride == next.activation_feature_stride &&
         goes_on(p.activations, next.activations, p.rows * p.activation_row_stride) &&
         goes_on(p.out, next.out, p.rows * p.out_channels) && p.indices + blocks * p.capacity == next.indices &&
         p.counts + blocks == next.counts;
}

/// Whether the kernels take the problem.
bool takes_one(const DeviceProperties& device, const ColumnMlpParams& p) {
  constexpr size_t kElement = 2, kBytes = 16;
  const int64_t limit = int64_t{1} << 31;
  const bool f8 = p.weight1_scale != nullptr;
  const size_t weight1_element = size_of(p.weight1.dtype);
  return device.major == kHopperMajor && (p.activation == Activation::kGeluTanh || p.activation == Activation::kSilu) &&
         p.block_rows == kMlpBlock && p.x.dtype == DType::kBF16 &&
         p.weight1.dtype == (f8 ? DType::kF8E4M3 : DType::kBF16) && p.weight2.dtype == DType::kBF16 && p.channels > 0 &&
         p.channels % channels_of_step(p) == 0 && p.out_channels > 0 && p.out_channels % kMlpTileChannels == 0 &&
         is_aligned(p.x.data, kElement, kBytes, p.x_row_stride, p.batch == 1 ? 0 : p.x_batch_stride) &&
         is_aligned(p.weight1.data, weight1_element, kBytes, p.weight1_row_stride) &&
         is_aligned(p.weight2.data, kElement, kBytes, p.weight2_row_stride) && p.activation_row_stride == 1 &&
         is_aligned(p.activations.data, kElement, kBytes, p.activation_feature_stride, p.activation_batch_stride) &&
         p.activation_feature_stride >= round_up(p.rows, kChunk) && (!p.activations_go_on || p.rows % kChunk == 0) &&
         is_aligned(p.out.data, kElement, kBytes) && p.features * p.weight1_row_stride < limit &&
         p.features * p.weight2_row_stride < limit && p.batch * ceil_div(p.rows, kMlpBlock) < (1 << 20);
}

}  // namespace

bool takes(const DeviceProperties& device, const ColumnMlpParams* problems, int count) {
  if (count == 1) return takes_one(device, problems[0]);
  return continues(problems[0], problems[1]) && takes_one(device, ColumnMlpProblem(problems, count).params) &&
         takes_one(device, problems[1]);
}

}  // namespace chipmunk::cuda::sm90
