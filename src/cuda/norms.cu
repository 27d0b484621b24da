#include "cuda/cuda_backend.h"
#include "cuda/cuda_error.h"
#include "cuda/overlap.cuh"
#include "cuda/packs.cuh"
#include "cuda/reduce.cuh"

namespace chipmunk::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kKeptPacks = 4;
/// Longer rows are read again for each pass: they come from the cache then.
constexpr int64_t kMaxKeptChannels = int64_t{kThreads} * kPack * kKeptPacks;

/// The channels of one row, shared among the threads of a block pack by pack. A row that is kept is read once: what the
/// norm writes, and the next kernel reads, stays in L2 in its place.
template <bool kWhole, bool kKept>
class Row {
 public:
  __device__ Row(const bf16* x, int channels) : x_(x), channels_(channels) {
    if constexpr (kKept) {
#pragma unroll
      for (int i = 0; i < kKeptPacks; ++i) {
        if (channel(i) < channels) packs_[i] = load_raw_pack<kWhole, true>(x, channel(i), channels);
      }
    }
  }

  /// x += gate * value; x: the row, as it was given.
  __device__ void update(bf16* x, const bf16* value, const bf16* gate) {
    if constexpr (kKept) {
      // All loads before the first store.
      RawPack addends[kKeptPacks], factors[kKeptPacks];
#pragma unroll
      for (int i = 0; i < kKeptPacks; ++i) {
        if (channel(i) >= channels_) continue;
        addends[i] = load_raw_pack<kWhole, true>(value, channel(i), channels_);
        factors[i] = load_raw_pack<kWhole>(gate, channel(i), channels_);
      }
#pragma unroll
      for (int i = 0; i < kKeptPacks; ++i) {
        if (channel(i) >= channels_) continue;
        const Pack sum = multiply_add(unpack(factors[i]), unpack(addends[i]), unpack(packs_[i]));
        packs_[i] = round_pack(sum);
        store_pack<kWhole>(x, channel(i), channels_, sum);
      }
    } else {
      for (int i = 0; channel(i) < channels_; ++i) {
        const int first = channel(i);
        const Pack sum =
            multiply_add(load_pack<kWhole>(gate, first, channels_), load_pack<kWhole>(value, first, channels_),
                         load_pack<kWhole>(x, first, channels_));
        store_pack<kWhole>(x, first, channels_, sum);
      }
    }
  }

  /// body(pack, its first channel) for each of this thread's packs, in ascending order.
  template <class Body>
  __device__ void for_each(const Body& body) const {
    if constexpr (kKept) {
#pragma unroll
      for (int i = 0; i < kKeptPacks; ++i) {
        if (channel(i) < channels_) body(unpack(packs_[i]), channel(i));
      }
    } else {
      for (int i = 0; channel(i) < channels_; ++i) body(load_pack<kWhole>(x_, channel(i), channels_), channel(i));
    }
  }

  /// total = add(total, value) for each value of the thread's part of the row, from 0 on.
  template <class Add>
  __device__ float fold(const Add& add) const {
    float total = 0.0f;
    for_each([&](const Pack& pack, int first) {
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        if (kWhole || first + i < channels_) total = add(total, pack.values[i]);
      }
    });
    return total;
  }

 private:
  __device__ static Pack multiply_add(const Pack& a, const Pack& b, Pack c) {
#pragma unroll
    for (int i = 0; i < kPack; ++i) c.values[i] = fmaf(a.values[i], b.values[i], c.values[i]);
    return c;
  }
  __device__ static int channel(int i) { return (i * kThreads + static_cast<int>(threadIdx.x)) * kPack; }

  const bf16* x_;
  int channels_;
  RawPack packs_[kKept ? kKeptPacks : 1];
};

/// One row of all samples', by a block. The mean is taken off before anything is squared: a row far from 0 loses
/// nothing.
template <bool kWhole, bool kKept, bool kUpdates>
__device__ void layer_norm_row(const LayerNormParams& p, unsigned row_of_all) {
  __shared__ float scratch[2][kThreads / kWarpSize];
  const int64_t b = row_of_all / static_cast<unsigned>(p.rows), t = row_of_all % static_cast<unsigned>(p.rows);
  const int channels = static_cast<int>(p.channels);
  const auto count = static_cast<float>(channels);
  const int64_t x_offset = b * p.x_batch_stride + t * p.x_row_stride;
  Row<kWhole, kKept> row(as_bf16(p.x) + x_offset, channels);
  if constexpr (kUpdates) {
    row.update(as_bf16(p.updated) + x_offset, as_bf16(p.update) + b * p.update_batch_stride + t * p.update_row_stride,
               as_bf16(p.gate) + b * p.gate_batch_stride);
  }
  const float sum = row.fold([](float total, float x) { return total + x; });
  const float mean = block_sum<kThreads>(sum, scratch[0]) / count;
  const float squares = row.fold([&](float total, float x) { return fmaf(x - mean, x - mean, total); });
  const float variance = block_sum<kThreads>(squares, scratch[1]) / count;
  const float inverse = rsqrtf(variance + p.epsilon);

  bf16* out = as_bf16(p.out) + b * p.out_batch_stride + t * p.out_row_stride;
  const bf16* scale = as_bf16(p.scale) + b * p.modulation_batch_stride;
  const bf16* shift = as_bf16(p.shift) + b * p.modulation_batch_stride;
  row.for_each([&](Pack pack, int first) {
#pragma unroll
    for (int i = 0; i < kPack; ++i) pack.values[i] = (pack.values[i] - mean) * inverse;
    if (p.weight.data != nullptr) {
      const Pack weight = load_pack<kWhole>(p.weight, first, channels);
      const Pack bias = load_pack<kWhole>(p.bias, first, channels);
#pragma unroll
      for (int i = 0; i < kPack; ++i) pack.values[i] = fmaf(pack.values[i], weight.values[i], bias.values[i]);
    }
    if (p.scale.data != nullptr) {
      const Pack factor = load_pack<kWhole>(scale, first, channels);
      const Pack addend = load_pack<kWhole>(shift, first, channels);
#pragma unroll
      for (int i = 0; i < kPack; ++i) pack.values[i] = fmaf(pack.values[i], 1.0f + factor.values[i], addend.values[i]);
    }
    store_pack<kWhole>(out, first, channels, pack);
  });
}

template <bool kWhole, bool kKept, bool kUpdates>
__global__ void __launch_bounds__(kThreads) layer_norm_kernel(const __grid_constant__ LayerNormParams p) {
  wait_for_previous_kernels();
  layer_norm_row<kWhole, kKept, kUpdates>(p, blockIdx.x);
}

/// The first one's rows, then the second one's.
template <bool kUpdates>
__global__ void __launch_bounds__(kThreads) layer_norm_pair_kernel(const __grid_constant__ LayerNormPairParams pair) {
  wait_for_previous_kernels();
  const auto first_rows = static_cast<unsigned>(pair.first.batch * pair.first.rows);
  if (blockIdx.x < first_rows) {
    layer_norm_row<true, true, kUpdates>(pair.first, blockIdx.x);
  } else {
    layer_norm_row<true, true, kUpdates>(pair.second, blockIdx.x - first_rows);
  }
}

/// One block a row.
template <bool kWhole, bool kKept>
__global__ void __launch_bounds__(kThreads) rms_norm_kernel(const __grid_constant__ RmsNormParams p) {
  __shared__ float scratch[kThreads / kWarpSize];
  const int64_t t = blockIdx.x;
  const int channels = static_cast<int>(p.channels);
  const Row<kWhole, kKept> row(as_bf16(p.x) + t * p.x_row_stride, channels);
  const float squares = row.fold([](float total, float x) { return fmaf(x, x, total); });
  const float mean_square = block_sum<kThreads>(squares, scratch) / static_cast<float>(channels);
  const float inverse = rsqrtf(mean_square + p.epsilon);

  bf16* out = as_bf16(p.out) + t * p.out_row_stride;
  row.for_each([&](Pack pack, int first) {
    const Pack weight = load_pack<kWhole>(p.weight, first, channels);
#pragma unroll
    for (int i = 0; i < kPack; ++i) pack.values[i] = pack.values[i] * inverse * weight.values[i];
    store_pack<kWhole>(out, first, channels, pack);
  });
}

template <bool kUpdates>
auto layer_norm_kernel_for(bool whole, int64_t channels) {
  const bool kept = channels <= kMaxKeptChannels;
  if (whole) return kept ? layer_norm_kernel<true, true, kUpdates> : layer_norm_kernel<true, false, kUpdates>;
  return kept ? layer_norm_kernel<false, true, kUpdates> : layer_norm_kernel<false, false, kUpdates>;
}

/// Whether all of its rows are packs that lie where one instruction moves them.
bool is_whole(const LayerNormParams& p) {
  const int64_t channels = p.channels;
  return has_whole_packs(p.x.data, DType::kBF16, channels, p.x_batch_stride, p.x_row_stride) &&
         has_whole_packs(p.out.data, DType::kBF16, channels, p.out_batch_stride, p.out_row_stride) &&
         has_whole_packs(p.weight.data, p.weight.dtype, channels) &&
         has_whole_packs(p.bias.data, p.bias.dtype, channels) &&
         has_whole_packs(p.scale.data, DType::kBF16, channels, p.modulation_batch_stride) &&
         has_whole_packs(p.shift.data, DType::kBF16, channels, p.modulation_batch_stride) &&
         has_whole_packs(p.update.data, DType::kBF16, channels, p.update_batch_stride, p.update_row_stride) &&
         has_whole_packs(p.gate.data, DType::kBF16, channels, p.gate_batch_stride);
}

}  // namespace

void CudaBackend::layer_norm(const Context& context, const LayerNormParams& params) {
  const int64_t rows = params.batch * params.rows, channels = params.channels;
  if (rows == 0 || channels == 0) return;
  const auto kernel = params.update.data != nullptr ? layer_norm_kernel_for<true>(is_whole(params), channels)
                                                    : layer_norm_kernel_for<false>(is_whole(params), channels);
  launch_overlapping(kernel, dim3(static_cast<unsigned>(rows)), dim3(kThreads), 0, compute_stream(context),
                     "layer_norm", params);
}

void CudaBackend::layer_norm_pair(const Context& context, const LayerNormPairParams& params) {
  const auto rows = [](const LayerNormParams& p) { return p.batch * p.rows; };
  const auto takes = [&](const LayerNormParams& p) {
    return rows(p) > 0 && p.channels > 0 && p.channels <= kMaxKeptChannels && is_whole(p);
  };
  const bool updates = params.first.update.data != nullptr;
  if (!takes(params.first) || !takes(params.second) || updates != (params.second.update.data != nullptr)) {
    return Backend::layer_norm_pair(context, params);
  }
  const auto kernel = updates ? layer_norm_pair_kernel<true> : layer_norm_pair_kernel<false>;
  launch_overlapping(kernel, dim3(static_cast<unsigned>(rows(params.first) + rows(params.second))), dim3(kThreads), 0,
                     compute_stream(context), "layer_norm_pair", params);
}

void CudaBackend::rms_norm(const Context& context, const RmsNormParams& params) {
  const int64_t rows = params.rows, channels = params.channels;
  if (rows == 0 || channels == 0) return;
  const bool whole = has_whole_packs(params.x.data, DType::kBF16, channels, params.x_row_stride) &&
                     has_whole_packs(params.out.data, DType::kBF16, channels, params.out_row_stride) &&
                     has_whole_packs(params.weight.data, params.weight.dtype, channels);
  const bool kept = channels <= kMaxKeptChannels;
  const auto kernel = whole ? (kept ? rms_norm_kernel<true, true> : rms_norm_kernel<true, false>)
                            : (kept ? rms_norm_kernel<false, true> : rms_norm_kernel<false, false>);
  kernel<<<static_cast<unsigned>(rows), kThreads, 0, compute_stream(context)>>>(params);
  check_launch("rms_norm");
}

}  // namespace chipmunk::cuda
