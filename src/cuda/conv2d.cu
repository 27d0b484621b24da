#include "cuda/cuda_backend.h"
#include "cuda/cuda_error.h"
#include "cuda/launch.h"
#include "cuda/mma.cuh"

namespace chipmunk::cuda {
namespace {

// Convolution as a matrix product that is never laid out: rows are output pixels, columns output channels, and the
// depth runs over the kernel's taps and the input channels, the order in which a channels-last weight is stored.
constexpr int kPixels = 128;
constexpr int kChannels = 128;
constexpr int kDepth = 64;
constexpr int kStages = 3;
// Warps share the tile as 4 x 2 parts of 32 pixels and 64 channels.
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kWarpPixels = 32, kWarpChannels = 64;
constexpr int kDepthChunks = kDepth / kChunk;
/// Rows of a tile that each thread loads one chunk of: every kThreads / kDepthChunks-th.
constexpr int kRowStep = kThreads / kDepthChunks;
constexpr int kRowsPerThread = kPixels / kRowStep;
static_assert(kPixels == kChannels, "one loop loads both tiles");
constexpr size_t kSharedBytes = sizeof(bf16) * kStages * (kPixels + kChannels) * kDepth;

struct Arguments {
  const bf16 *x, *weight, *residual;
  const void* bias;
  bf16* out;
  DType bias_dtype;
  int64_t pixels;  // of all images
  int in_height, in_width, in_channels;
  int out_height, out_width, out_channels;
  int kernel_width, stride, pad_top, pad_left;
  int depth;
  int channel_tiles;
};

/// Where an output pixel's window starts in the input, which the padding may put outside.
struct Window {
  int64_t image;  // offset of its first element
  int y, x;
  bool exists;
};

__device__ Window find_window(const Arguments& a, int64_t pixel) {
  const int64_t per_image = static_cast<int64_t>(a.out_height) * a.out_width;
  const int64_t image = pixel / per_image;
  const int within = static_cast<int>(pixel - image * per_image);
  return {image * a.in_height * a.in_width * a.in_channels, within / a.out_width * a.stride - a.pad_top,
          within % a.out_width * a.stride - a.pad_left, pixel < a.pixels};
}

/// The input that element `depth` of a window's row stands for, or null for padding.
__device__ const bf16* find_input(const Arguments& a, const Window& window, int depth) {
  const int tap = depth / a.in_channels;
  const int y = window.y + tap / a.kernel_width, x = window.x + tap % a.kernel_width;
  const bool inside = window.exists && depth < a.depth &&
                      static_cast<unsigned>(y) < static_cast<unsigned>(a.in_height) &&
                      static_cast<unsigned>(x) < static_cast<unsigned>(a.in_width);
  if (!inside) return nullptr;
  return a.x + window.image + (static_cast<int64_t>(y) * a.in_width + x) * a.in_channels + depth % a.in_channels;
}

/// Queues one stage's tiles of input and weight. kAligned: a chunk never leaves its tap and starts at 16 bytes.
template <bool kAligned>
__device__ void load_stage(const Arguments& a, const Tile<kDepth>& input, const Tile<kDepth>& weight,
                           const Window (&windows)[kRowsPerThread], int first_channel, int first_depth) {
  const int chunk = static_cast<int>(threadIdx.x) % kDepthChunks;
  const int depth = first_depth + chunk * kChunk;
#pragma unroll
  for (int i = 0; i < kRowsPerThread; ++i) {
    const int row = static_cast<int>(threadIdx.x) / kDepthChunks + i * kRowStep;
    const int channel = first_channel + row;
    const bf16* weights = a.weight + static_cast<int64_t>(channel) * a.depth + depth;
    if constexpr (kAligned) {
      const bf16* from = find_input(a, windows[i], depth);
      copy_async_16(input.chunk(row, chunk), from != nullptr ? from : a.x, from != nullptr);
      const bool valid = channel < a.out_channels && depth < a.depth;
      copy_async_16(weight.chunk(row, chunk), valid ? weights : a.weight, valid);
    } else {
      Vec<bf16, kChunk> values{}, weight_values{};
#pragma unroll
      for (int e = 0; e < kChunk; ++e) {
        const bf16* from = find_input(a, windows[i], depth + e);
        if (from != nullptr) values.values[e] = *from;
        if (channel < a.out_channels && depth + e < a.depth) weight_values.values[e] = weights[e];
      }
      store_vec(input.chunk(row, chunk), values);
      store_vec(weight.chunk(row, chunk), weight_values);
    }
  }
  commit_copies();
}

/// One block a tile of kPixels x kChannels of the output.
template <bool kAligned>
__global__ void __launch_bounds__(kThreads) conv2d(const __grid_constant__ Arguments a) {
  extern __shared__ __align__(16) unsigned char shared[];
  bf16* memory = reinterpret_cast<bf16*>(shared);
  const auto input_tile = [&](int t) { return Tile<kDepth>{memory + t % kStages * kPixels * kDepth}; };
  const auto weight_tile = [&](int t) {
    return Tile<kDepth>{memory + (kStages * kPixels + t % kStages * kChannels) * kDepth};
  };
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize, lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int first_channel = static_cast<int>(blockIdx.x % a.channel_tiles) * kChannels;
  const int64_t first_pixel = static_cast<int64_t>(blockIdx.x / a.channel_tiles) * kPixels;
  Window windows[kRowsPerThread];
#pragma unroll
  for (int i = 0; i < kRowsPerThread; ++i) {
    windows[i] = find_window(a, first_pixel + static_cast<int>(threadIdx.x) / kDepthChunks + i * kRowStep);
  }

  const int tiles = (a.depth + kDepth - 1) / kDepth;
#pragma unroll
  for (int t = 0; t < kStages - 1; ++t) {
    // Past the end, zeros keep the count of groups right.
    load_stage<kAligned>(a, input_tile(t), weight_tile(t), windows, first_channel, t * kDepth);
  }
  float sums[kWarpPixels / 16][kWarpChannels / 8][4] = {};
  const int warp_pixel = warp / 2 * kWarpPixels, warp_channel = warp % 2 * kWarpChannels;
  for (int t = 0; t < tiles; ++t) {
    wait_copies<kStages - 2>();
    __syncthreads();
    const int next = t + kStages - 1;
    load_stage<kAligned>(a, input_tile(next), weight_tile(next), windows, first_channel, next * kDepth);
    const Tile<kDepth> input = input_tile(t), weight = weight_tile(t);
#pragma unroll
    for (int depth = 0; depth < kDepth / 16; ++depth) {
      uint32_t left[kWarpPixels / 16][4];
#pragma unroll
      for (int m = 0; m < kWarpPixels / 16; ++m) input.load_block(left[m], warp_pixel + m * 16, depth * 2, lane);
#pragma unroll
      for (int n = 0; n < kWarpChannels / 8; n += 2) {
        uint32_t right[4];
        weight.load_block(right, warp_channel + n * 8, depth * 2, lane);
#pragma unroll
        for (int m = 0; m < kWarpPixels / 16; ++m) {
          multiply_add(sums[m][n], left[m], right[0], right[2]);
          multiply_add(sums[m][n + 1], left[m], right[1], right[3]);
        }
      }
    }
  }
  wait_copies<0>();

#pragma unroll
  for (int m = 0; m < kWarpPixels / 16; ++m) {
#pragma unroll
    for (int n = 0; n < kWarpChannels / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int64_t pixel = first_pixel + warp_pixel + m * 16 + lane / 4 + i / 2 * 8;
        const int channel = first_channel + warp_channel + n * 8 + lane % 4 * 2 + i % 2;
        if (pixel >= a.pixels || channel >= a.out_channels) continue;
        const int64_t at = pixel * a.out_channels + channel;
        float value = sums[m][n][i];
        if (a.bias != nullptr) value += load_any(a.bias, a.bias_dtype, channel);
        if (a.residual != nullptr) value += to_float(a.residual[at]);
        a.out[at] = from_float<bf16>(value);
      }
    }
  }
}

template <bool kAligned>
void launch(cudaStream_t stream, const Arguments& a) {
  check(cudaFuncSetAttribute(conv2d<kAligned>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(kSharedBytes)),
        "conv2d: shared memory");
  const auto blocks = static_cast<unsigned>(ceil_div(a.pixels, kPixels) * a.channel_tiles);
  conv2d<kAligned><<<blocks, kThreads, kSharedBytes, stream>>>(a);
}

}  // namespace

void CudaBackend::conv2d(const Context& context, const Conv2dParams& params) {
  Arguments a{};
  a.x = static_cast<const bf16*>(params.x.data);
  a.weight = static_cast<const bf16*>(params.weight.data);
  a.residual = static_cast<const bf16*>(params.residual.data);
  a.bias = params.bias.data;
  a.bias_dtype = params.bias.dtype;
  a.out = static_cast<bf16*>(params.out.data);
  a.pixels = params.batch * params.out_height * params.out_width;
  a.in_height = static_cast<int>(params.in_height);
  a.in_width = static_cast<int>(params.in_width);
  a.in_channels = static_cast<int>(params.in_channels);
  a.out_height = static_cast<int>(params.out_height);
  a.out_width = static_cast<int>(params.out_width);
  a.out_channels = static_cast<int>(params.out_channels);
  a.kernel_width = static_cast<int>(params.kernel_width);
  a.stride = static_cast<int>(params.stride);
  a.pad_top = static_cast<int>(params.pad_top);
  a.pad_left = static_cast<int>(params.pad_left);
  a.depth = static_cast<int>(params.kernel_height * params.kernel_width * params.in_channels);
  a.channel_tiles = static_cast<int>(ceil_div(params.out_channels, kChannels));
  if (a.pixels == 0 || a.out_channels == 0) return;
  const cudaStream_t stream = compute_stream(context);
  constexpr size_t kBytes = kChunk * sizeof(bf16);
  if (a.in_channels % kChunk == 0 && is_aligned(a.x, 1, kBytes) && is_aligned(a.weight, 1, kBytes)) {
    launch<true>(stream, a);
  } else {
    launch<false>(stream, a);
  }
  check_launch("conv2d");
}

}  // namespace chipmunk::cuda
