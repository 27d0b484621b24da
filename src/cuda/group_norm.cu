#include <algorithm>

#include "cuda/cuda_backend.h"
#include "cuda/cuda_error.h"
#include "cuda/packs.cuh"
#include "cuda/reduce.cuh"

namespace chipmunk::cuda {
namespace {

constexpr int kThreads = 256;
/// Pixels that a thread has on their way at once.
constexpr int kUnroll = 4;
/// Pixels that a thread sums or writes: enough to pay for its coefficients, few enough to fill the device.
constexpr int kPixelsPerThread = 32;

/// How a block divides its chunk of an image: threads side by side own the packs of a pixel, rows of threads every
/// rows-th pixel.
struct Plan {
  dim3 threads;
  int64_t column_blocks;
  int chunk_pixels;
  int64_t chunks;  // of an image
};

Plan make_plan(const GroupNormParams& params) {
  const int64_t packs = ceil_div(params.channels, kPack);
  const int64_t columns = std::min<int64_t>(packs, kThreads);
  const int64_t rows = kThreads / columns;
  // A chunk's sums stand for differences from its first pixel: short, they lose little even if that is an outlier.
  constexpr int64_t kMaxChunkPixels = 512;
  const int64_t chunk_pixels = std::min(rows * kPixelsPerThread, kMaxChunkPixels);
  return {dim3(static_cast<unsigned>(columns), static_cast<unsigned>(rows)), ceil_div(packs, columns),
          static_cast<int>(chunk_pixels), ceil_div(params.pixels, chunk_pixels)};
}

/// The part of an image that a block works on.
struct Chunk {
  int64_t image;
  int64_t index;        // in its image
  int64_t first_pixel;  // of its image
  int pixels;
};

__device__ Chunk find_chunk(int64_t image_pixels, int chunk_pixels, int64_t chunks) {
  const int64_t image = blockIdx.x / static_cast<unsigned>(chunks), index = blockIdx.x % static_cast<unsigned>(chunks);
  const int64_t first = index * chunk_pixels;
  return {image, index, first, static_cast<int>(min(static_cast<int64_t>(chunk_pixels), image_pixels - first))};
}

__device__ int first_channel() { return static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * kPack; }

/// body(pack, pixel) for the thread's pixels of a chunk, kUnroll loads at a time.
template <bool kWhole, class Body>
__device__ void for_each_pixel(const bf16* x, int pixels, int channel, int channels, const Body& body) {
  const int step = static_cast<int>(blockDim.y);
  for (int base = static_cast<int>(threadIdx.y); base < pixels; base += kUnroll * step) {
    RawPack packs[kUnroll];
#pragma unroll
    for (int i = 0; i < kUnroll; ++i) {
      const int64_t pixel = base + i * step;
      if (pixel < pixels) packs[i] = load_raw_pack<kWhole>(x + pixel * channels, channel, channels);
    }
#pragma unroll
    for (int i = 0; i < kUnroll; ++i) {
      const int pixel = base + i * step;
      if (pixel < pixels) body(unpack(packs[i]), pixel);
    }
  }
}

/// moments[image, chunk, channel] = the mean of the chunk's pixels, and the sum of their squared distances from it.
template <bool kWhole>
__global__ void __launch_bounds__(kThreads)
    chunk_moments_kernel(const __grid_constant__ GroupNormParams p, int chunk_pixels, int64_t chunks, float2* moments) {
  __shared__ __align__(16) float sums[kThreads * kPack], squares[kThreads * kPack];
  const Chunk chunk = find_chunk(p.pixels, chunk_pixels, chunks);
  const int channels = static_cast<int>(p.channels), channel = first_channel();
  const bf16* x = as_bf16(p.x) + (chunk.image * p.pixels + chunk.first_pixel) * channels;
  Pack sum{}, square{};
  if (channel < channels) {
    const Pack base = load_pack<kWhole>(x, channel, channels);
    for_each_pixel<kWhole>(x, chunk.pixels, channel, channels, [&](const Pack& pack, int) {
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        const float difference = pack.values[i] - base.values[i];
        sum.values[i] += difference;
        square.values[i] = fmaf(difference, difference, square.values[i]);
      }
    });
  }
  const int row_values = static_cast<int>(blockDim.x) * kPack;
  const int slot = static_cast<int>(threadIdx.y) * row_values + static_cast<int>(threadIdx.x) * kPack;
#pragma unroll
  for (int i = 0; i < kPack; ++i) sums[slot + i] = sum.values[i], squares[slot + i] = square.values[i];
  __syncthreads();

  const int threads = static_cast<int>(blockDim.x * blockDim.y);
  for (int c = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x); c < row_values; c += threads) {
    const int own_channel = static_cast<int>(blockIdx.y) * row_values + c;
    if (own_channel >= channels) break;
    float total = 0.0f, total_square = 0.0f;
    for (int row = 0; row < static_cast<int>(blockDim.y); ++row) {
      total += sums[row * row_values + c];
      total_square += squares[row * row_values + c];
    }
    const float shift = total / static_cast<float>(chunk.pixels);
    moments[(chunk.image * chunks + chunk.index) * channels + own_channel] =
        float2{to_float(x[own_channel]) + shift, fmaf(-total, shift, total_square)};
  }
}

/// One block a group of an image: coefficients[image, 0 and 1, channel] = factor and addend that normalise it.
__global__ void __launch_bounds__(kThreads)
    coefficients_kernel(const __grid_constant__ GroupNormParams p, int chunk_pixels, int64_t chunks,
                        const float2* moments, float* coefficients) {
  __shared__ float scratch[2][kThreads / kWarpSize];
  const auto groups = static_cast<unsigned>(p.groups);
  const int64_t image = blockIdx.x / groups;
  const int channels = static_cast<int>(p.channels);
  const int group_channels = channels / static_cast<int>(groups);
  const int first = static_cast<int>(blockIdx.x % groups) * group_channels;
  const float2* own = moments + image * chunks * channels + first;
  const int parts = static_cast<int>(chunks) * group_channels;
  const auto for_each_part = [&](const auto& body) {
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x); i < parts; i += kThreads) {
      const int chunk = i / group_channels;
      const int64_t pixels = min(static_cast<int64_t>(chunk_pixels), p.pixels - int64_t{chunk} * chunk_pixels);
      body(static_cast<float>(pixels), own[int64_t{chunk} * channels + i % group_channels]);
    }
  };
  const float count = static_cast<float>(p.pixels) * static_cast<float>(group_channels);
  float sum = 0.0f;
  for_each_part([&](float pixels, float2 part) { sum = fmaf(pixels, part.x, sum); });
  const float mean = block_sum<kThreads>(sum, scratch[0]) / count;
  float squares = 0.0f;
  for_each_part([&](float pixels, float2 part) {
    const float distance = part.x - mean;
    squares += fmaf(pixels * distance, distance, part.y);
  });
  const float variance = block_sum<kThreads>(squares, scratch[1]) / count;
  const float inverse = rsqrtf(variance + p.epsilon);

  float* factors = coefficients + image * 2 * channels;
  for (int c = first + static_cast<int>(threadIdx.x); c < first + group_channels; c += kThreads) {
    const float factor = inverse * load_any(p.weight.data, p.weight.dtype, c);
    factors[c] = factor;
    factors[channels + c] = fmaf(-mean, factor, load_any(p.bias.data, p.bias.dtype, c));
  }
}

/// out = activation(x * factor + addend). That the addend holds the mean costs nothing: in bf16, x is not known better.
template <bool kWhole>
__global__ void __launch_bounds__(kThreads)
    normalise_kernel(const __grid_constant__ GroupNormParams p, int chunk_pixels, int64_t chunks,
                     const float* coefficients) {
  const Chunk chunk = find_chunk(p.pixels, chunk_pixels, chunks);
  const int channels = static_cast<int>(p.channels), channel = first_channel();
  if (channel >= channels) return;
  const int64_t offset = (chunk.image * p.pixels + chunk.first_pixel) * channels;
  bf16* out = as_bf16(p.out) + offset;
  const float* factors = coefficients + chunk.image * 2 * channels;
  const Pack factor = load_pack<kWhole>(factors, channel, channels);
  const Pack addend = load_pack<kWhole>(factors + channels, channel, channels);
  for_each_pixel<kWhole>(as_bf16(p.x) + offset, chunk.pixels, channel, channels, [&](Pack pack, int64_t pixel) {
#pragma unroll
    for (int i = 0; i < kPack; ++i) pack.values[i] = fmaf(pack.values[i], factor.values[i], addend.values[i]);
    activate(p.activation, pack);
    store_pack<kWhole>(out + pixel * channels, channel, channels, pack);
  });
}

template <bool kWhole>
void launch(const Context& context, const GroupNormParams& params) {
  const Plan plan = make_plan(params);
  const Tensor moments = context.empty({params.batch, plan.chunks, params.channels, 2}, DType::kF32);
  const Tensor coefficients = context.empty({params.batch, 2, params.channels}, DType::kF32);
  auto* parts = static_cast<float2*>(moments.data());
  auto* factors = static_cast<float*>(coefficients.data());
  const cudaStream_t stream = compute_stream(context);
  const dim3 grid(static_cast<unsigned>(params.batch * plan.chunks), static_cast<unsigned>(plan.column_blocks));
  chunk_moments_kernel<kWhole><<<grid, plan.threads, 0, stream>>>(params, plan.chunk_pixels, plan.chunks, parts);
  coefficients_kernel<<<static_cast<unsigned>(params.batch * params.groups), kThreads, 0, stream>>>(
      params, plan.chunk_pixels, plan.chunks, parts, factors);
  normalise_kernel<kWhole><<<grid, plan.threads, 0, stream>>>(params, plan.chunk_pixels, plan.chunks, factors);
  check_launch("group_norm");
}

}  // namespace

void CudaBackend::group_norm(const Context& context, const GroupNormParams& params) {
  if (params.batch == 0 || params.pixels == 0 || params.channels == 0) return;
  if (has_whole_packs(params.x.data, DType::kBF16, params.channels) &&
      has_whole_packs(params.out.data, DType::kBF16, params.channels)) {
    launch<true>(context, params);
  } else {
    launch<false>(context, params);
  }
}

}  // namespace chipmunk::cuda
