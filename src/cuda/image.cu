#include "cuda/cuda_backend.h"
#include "cuda/cuda_error.h"
#include "cuda/row_grid.cuh"

namespace chipmunk::cuda {
namespace {

/// Rows are the extent, the batch what lies outside of it.
template <bool kWhole>
__global__ void __launch_bounds__(kRowGridThreads) blend_kernel(const __grid_constant__ BlendParams p) {
  const int64_t channel = grid_channel();
  if (channel >= p.inner) return;
  for (int64_t outer = blockIdx.z; outer < p.outer; outer += gridDim.z) {
    for (int64_t i = grid_row(); i < p.extent; i += grid_row_step()) {
      const float weight = static_cast<float>(i) / static_cast<float>(p.extent);
      const bf16* previous = as_bf16(p.previous) + outer * p.previous_outer_stride + i * p.previous_stride;
      bf16* out = as_bf16(p.out) + outer * p.out_outer_stride + i * p.out_stride;
      const Pack old = load_pack<kWhole>(previous, channel, p.inner);
      Pack pack = load_pack<kWhole>(static_cast<const bf16*>(out), channel, p.inner);
#pragma unroll
      for (int c = 0; c < kPack; ++c) pack.values[c] = old.values[c] * (1.0f - weight) + pack.values[c] * weight;
      store_pack<kWhole>(out, channel, p.inner, pack);
    }
  }
}

__device__ uint32_t quantize(float x) {
  const float value = x * 0.5f + 0.5f;
  // Written so that NaN takes the branch of 0.
  const float bounded = value > 0.0f ? (value < 1.0f ? value : 1.0f) : 0.0f;
  return static_cast<uint32_t>(__float2int_rn(bounded * 255.0f));
}

template <bool kWhole>
__global__ void __launch_bounds__(kRowGridThreads) quantize_kernel(const __grid_constant__ QuantizeImageParams p) {
  const int64_t first = grid_channel();
  if (first >= p.count) return;
  const Pack pack = load_pack<kWhole>(as_bf16(p.x), first, p.count);
  if constexpr (kWhole) {
    uint64_t bytes = 0;
#pragma unroll
    for (int i = 0; i < kPack; ++i) bytes |= static_cast<uint64_t>(quantize(pack.values[i])) << (8 * i);
    *reinterpret_cast<uint64_t*>(p.out + first) = bytes;
  } else {
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      if (first + i < p.count) p.out[first + i] = static_cast<uint8_t>(quantize(pack.values[i]));
    }
  }
}

}  // namespace

void CudaBackend::upsample_nearest(const Context& context, const UpsampleNearestParams& params) {
  // A copy in which each pixel repeats along two more dimensions.
  const int64_t factor = params.factor, channels = params.channels;
  const int64_t row = params.width * channels, image = params.height * row;
  const int64_t out_pixel = factor * channels, out_row = factor * row;
  CopyParams copy_params{params.x,
                         params.out,
                         6,
                         {params.batch, params.height, factor, params.width, factor, channels},
                         {image, row, 0, channels, 0, 1},
                         {factor * factor * image, factor * out_row, out_row, out_pixel, channels, 1}};
  copy(context, copy_params);
}

void CudaBackend::blend(const Context& context, const BlendParams& params) {
  if (params.outer == 0 || params.extent == 0 || params.inner == 0) return;
  const bool whole =
      has_whole_packs(params.previous.data, DType::kBF16, params.inner, params.previous_outer_stride,
                      params.previous_stride) &&
      has_whole_packs(params.out.data, DType::kBF16, params.inner, params.out_outer_stride, params.out_stride);
  const auto kernel = whole ? blend_kernel<true> : blend_kernel<false>;
  const RowGrid grid = plan_row_grid(params.outer, params.extent, params.inner);
  kernel<<<grid.blocks, grid.threads, 0, compute_stream(context)>>>(params);
  check_launch("blend");
}

void CudaBackend::quantize_image(const Context& context, const QuantizeImageParams& params) {
  if (params.count == 0) return;
  const bool whole = has_whole_packs(params.x.data, DType::kBF16, params.count) &&
                     has_whole_packs(params.out, DType::kU8, params.count);
  const auto kernel = whole ? quantize_kernel<true> : quantize_kernel<false>;
  const RowGrid grid = plan_row_grid(1, 1, params.count);
  kernel<<<grid.blocks, grid.threads, 0, compute_stream(context)>>>(params);
  check_launch("quantize_image");
}

}  // namespace chipmunk::cuda
