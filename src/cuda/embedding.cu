#include <algorithm>
#include <cmath>

#include "cuda/cuda_backend.h"
#include "cuda/cuda_error.h"
#include "cuda/row_grid.cuh"

namespace chipmunk::cuda {
namespace {

template <bool kWhole>
__global__ void __launch_bounds__(kRowGridThreads) embedding_kernel(const __grid_constant__ EmbeddingParams p) {
  const int64_t channel = grid_channel();
  if (channel >= p.channels) return;
  for (int64_t row = grid_row(); row < p.count; row += grid_row_step()) {
    const int64_t first = p.indices[row] * p.channels;
    const Pack pack = load_pack<kWhole>(p.table, first + channel, first + p.channels);
    store_pack<kWhole>(as_bf16(p.out) + row * p.channels, channel, p.channels, pack);
  }
}

constexpr int kTimestepThreads = 128;

/// One thread a frequency; y is the batch.
__global__ void __launch_bounds__(kTimestepThreads)
    timestep_embedding_kernel(const __grid_constant__ TimestepEmbeddingParams p, float log_max_period) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kTimestepThreads + threadIdx.x, half = p.channels / 2;
  if (i >= half) return;
  // In f32 up to here, since that rounding is part of the definition.
  const float exponent = -log_max_period * static_cast<float>(i) / static_cast<float>(half);
  const auto frequency = static_cast<float>(exp(static_cast<double>(exponent)));
  for (int64_t b = blockIdx.y; b < p.batch; b += gridDim.y) {
    const float angle = p.arguments[b] * frequency;
    bf16* out = as_bf16(p.out) + b * p.channels;
    out[i] = from_float<bf16>(cosf(angle));
    out[half + i] = from_float<bf16>(sinf(angle));
  }
}

}  // namespace

void CudaBackend::embedding(const Context& context, const EmbeddingParams& params) {
  if (params.count == 0 || params.channels == 0) return;
  const bool whole = has_whole_packs(params.table.data, params.table.dtype, params.channels) &&
                     has_whole_packs(params.out.data, DType::kBF16, params.channels);
  const auto kernel = whole ? embedding_kernel<true> : embedding_kernel<false>;
  const RowGrid grid = plan_row_grid(1, params.count, params.channels);
  kernel<<<grid.blocks, grid.threads, 0, compute_stream(context)>>>(params);
  check_launch("embedding");
}

void CudaBackend::timestep_embedding(const Context& context, const TimestepEmbeddingParams& params) {
  if (params.batch == 0 || params.channels == 0) return;
  const auto log_max_period = static_cast<float>(std::log(static_cast<double>(params.max_period)));
  const dim3 grid(static_cast<unsigned>(ceil_div(params.channels / 2, kTimestepThreads)),
                  static_cast<unsigned>(std::min(params.batch, kMaxGridYZ)));
  timestep_embedding_kernel<<<grid, kTimestepThreads, 0, compute_stream(context)>>>(params, log_max_period);
  check_launch("timestep_embedding");
}

}  // namespace chipmunk::cuda
