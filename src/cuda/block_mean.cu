#include "cuda/cuda_backend.h"
#include "cuda/cuda_error.h"
#include "cuda/float_types.cuh"
#include "cuda/launch.h"
#include "cuda/overlap.cuh"
#include "cuda/sm90/thin_linear.h"

namespace chipmunk::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpSize;

struct Arguments {
  const bf16* x;
  bf16* out;
  int64_t rows, channels, block_rows;
  int64_t x_batch_stride, x_row_stride;
};

/// One block of threads a block of tokens and kWarpSize * kVector channels; a warp adds up every kWarps-th row. Grid
/// [token blocks, channel tiles, batch].
template <int kVector>
__global__ void __launch_bounds__(kThreads) block_mean(const __grid_constant__ Arguments a) {
  wait_for_previous_kernels();
  let_next_kernel_begin();
  constexpr int kTile = kWarpSize * kVector;
  __shared__ float partial[kWarps][kTile];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpSize, lane = thread % kWarpSize;
  const int64_t first_row = blockIdx.x * a.block_rows, first_channel = int64_t{blockIdx.y} * kTile;
  const int64_t rows = min(a.block_rows, a.rows - first_row);
  const int64_t channel = first_channel + lane * kVector;

  float sums[kVector] = {};
  if (channel < a.channels) {
    const bf16* x = a.x + blockIdx.z * a.x_batch_stride + first_row * a.x_row_stride + channel;
#pragma unroll 8
    for (int64_t row = warp; row < rows; row += kWarps) {
      const Vec<bf16, kVector> values = load_vec<bf16, kVector>(x + row * a.x_row_stride);
#pragma unroll
      for (int i = 0; i < kVector; ++i) sums[i] += to_float(values.values[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kVector; ++i) partial[warp][lane * kVector + i] = sums[i];
  __syncthreads();
  if (thread >= kTile || first_channel + thread >= a.channels) return;
  float sum = 0.0f;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += partial[w][thread];
  const int64_t out_row = int64_t{blockIdx.z} * gridDim.x + blockIdx.x;
  a.out[out_row * a.channels + first_channel + thread] = from_float<bf16>(sum / static_cast<float>(rows));
}

}  // namespace

void CudaBackend::block_mean(const Context& context, const BlockMeanParams& params) {
  if (params.batch == 0 || params.rows == 0 || params.channels == 0) return;
  Arguments a{};
  a.x = static_cast<const bf16*>(params.x.data);
  a.out = static_cast<bf16*>(params.out.data);
  a.rows = params.rows;
  a.channels = params.channels;
  a.block_rows = params.block_rows;
  a.x_batch_stride = params.x_batch_stride;
  a.x_row_stride = params.x_row_stride;
  constexpr int kVector = kThreads / kWarpSize;
  const bool vectors = params.channels % kVector == 0 &&
                       is_aligned(a.x, sizeof(bf16), kVector * sizeof(bf16), a.x_batch_stride, a.x_row_stride);
  const dim3 grid(static_cast<unsigned>(ceil_div(params.rows, params.block_rows)),
                  static_cast<unsigned>(ceil_div(params.channels, kWarpSize * (vectors ? kVector : 1))),
                  static_cast<unsigned>(params.batch));
  const cudaStream_t stream = compute_stream(context);
  const auto kernel = vectors ? cuda::block_mean<kVector> : cuda::block_mean<1>;
  // A multiprocessor that shared its memory out otherwise would have to end all its blocks before it takes the next
  // kernel's.
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
        "block_mean");
  launch_overlapping(kernel, grid, dim3(kThreads), 0, stream, "block_mean", a);
}

void CudaBackend::block_mean_linear(const Context& context, const BlockMeanLinearParams& params) {
  // All means first: a thin linear behind another one has its weights come while that one ends.
  for (int i = 0; i < params.count; ++i) block_mean(context, params.parts[i].mean);
  for (int i = 0; i < params.count; ++i) {
    const LinearParams& layer = params.parts[i].linear;
    if (params.parts[i].mean.rows > 0 && sm90::takes_thin_linear(device_, layer)) {
      sm90::launch_thin_linear(compute_stream(context), layer);
    } else {
      linear(context, layer);
    }
  }
}

}  // namespace chipmunk::cuda
