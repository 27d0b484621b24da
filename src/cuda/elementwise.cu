#include "cuda/cuda_backend.h"
#include "cuda/cuda_error.h"
#include "cuda/overlap.cuh"
#include "cuda/row_grid.cuh"

namespace chipmunk::cuda {
namespace {

// Every thread of these kernels owns one pack of channels, of one row or of a few far apart.

template <bool kWhole>
__global__ void __launch_bounds__(kRowGridThreads) gated_add_kernel(const __grid_constant__ GatedAddParams p) {
  wait_for_previous_kernels();
  const int64_t channel = grid_channel();
  if (channel >= p.channels) return;
  for (int64_t b = blockIdx.z; b < p.batch; b += gridDim.z) {
    for (int64_t row = grid_row(); row < p.rows; row += grid_row_step()) {
      const Pack gate = load_pack<kWhole>(as_bf16(p.gate) + b * p.gate_batch_stride, channel, p.channels);
      const Pack x = load_pack<kWhole>(as_bf16(p.x) + b * p.x_batch_stride + row * p.x_row_stride, channel, p.channels);
      Pack sum = load_pack<kWhole>(as_bf16(p.residual) + b * p.residual_batch_stride + row * p.residual_row_stride,
                                   channel, p.channels);
#pragma unroll
      for (int i = 0; i < kPack; ++i) sum.values[i] = fmaf(gate.values[i], x.values[i], sum.values[i]);
      store_pack<kWhole>(as_bf16(p.out) + b * p.out_batch_stride + row * p.out_row_stride, channel, p.channels, sum);
    }
  }
}

template <bool kWhole>
__global__ void __launch_bounds__(kRowGridThreads) activation_kernel(const __grid_constant__ ActivationParams p) {
  const int64_t channel = grid_channel();
  if (channel >= p.channels) return;
  for (int64_t row = grid_row(); row < p.rows; row += grid_row_step()) {
    Pack pack = load_pack<kWhole>(as_bf16(p.x) + row * p.x_row_stride, channel, p.channels);
    activate(p.activation, pack);
    store_pack<kWhole>(as_bf16(p.out) + row * p.out_row_stride, channel, p.channels, pack);
  }
}

template <bool kWhole>
__global__ void __launch_bounds__(kRowGridThreads) clamp_kernel(const __grid_constant__ ClampParams p) {
  const int64_t channel = grid_channel();
  if (channel >= p.channels) return;
  for (int64_t row = grid_row(); row < p.rows; row += grid_row_step()) {
    Pack pack = load_pack<kWhole>(as_bf16(p.x) + row * p.x_row_stride, channel, p.channels);
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      // Comparisons with NaN are false, so it passes through both.
      const float raised = pack.values[i] < p.low ? p.low : pack.values[i];
      pack.values[i] = raised > p.high ? p.high : raised;
    }
    store_pack<kWhole>(as_bf16(p.out) + row * p.out_row_stride, channel, p.channels, pack);
  }
}

template <bool kWhole>
__global__ void __launch_bounds__(kRowGridThreads)
    gated_activation_kernel(const __grid_constant__ GatedActivationParams p) {
  const int64_t channel = grid_channel();
  if (channel >= p.channels) return;
  for (int64_t row = grid_row(); row < p.rows; row += grid_row_step()) {
    Pack pack = load_pack<kWhole>(as_bf16(p.gate) + row * p.gate_row_stride, channel, p.channels);
    const Pack x = load_pack<kWhole>(as_bf16(p.x) + row * p.x_row_stride, channel, p.channels);
    activate(p.activation, pack);
#pragma unroll
    for (int i = 0; i < kPack; ++i) pack.values[i] *= x.values[i];
    store_pack<kWhole>(as_bf16(p.out) + row * p.out_row_stride, channel, p.channels, pack);
  }
}

}  // namespace

void CudaBackend::gated_add(const Context& context, const GatedAddParams& params) {
  if (params.batch == 0 || params.rows == 0 || params.channels == 0) return;
  const int64_t channels = params.channels;
  const bool whole =
      has_whole_packs(params.x.data, DType::kBF16, channels, params.x_batch_stride, params.x_row_stride) &&
      has_whole_packs(params.gate.data, DType::kBF16, channels, params.gate_batch_stride) &&
      has_whole_packs(params.residual.data, DType::kBF16, channels, params.residual_batch_stride,
                      params.residual_row_stride) &&
      has_whole_packs(params.out.data, DType::kBF16, channels, params.out_batch_stride, params.out_row_stride);
  const auto kernel = whole ? gated_add_kernel<true> : gated_add_kernel<false>;
  const RowGrid grid = plan_row_grid(params.batch, params.rows, channels);
  launch_overlapping(kernel, grid.blocks, grid.threads, 0, compute_stream(context), "gated_add", params);
}

void CudaBackend::activation(const Context& context, const ActivationParams& params) {
  if (params.rows == 0 || params.channels == 0) return;
  ActivationParams p = params;
  merge_rows(p.rows, p.channels, p.x_row_stride, p.out_row_stride);
  const bool whole = has_whole_packs(p.x.data, DType::kBF16, p.channels, p.x_row_stride) &&
                     has_whole_packs(p.out.data, DType::kBF16, p.channels, p.out_row_stride);
  const auto kernel = whole ? activation_kernel<true> : activation_kernel<false>;
  const RowGrid grid = plan_row_grid(1, p.rows, p.channels);
  kernel<<<grid.blocks, grid.threads, 0, compute_stream(context)>>>(p);
  check_launch("activation");
}

void CudaBackend::clamp(const Context& context, const ClampParams& params) {
  if (params.rows == 0 || params.channels == 0) return;
  ClampParams p = params;
  merge_rows(p.rows, p.channels, p.x_row_stride, p.out_row_stride);
  const bool whole = has_whole_packs(p.x.data, DType::kBF16, p.channels, p.x_row_stride) &&
                     has_whole_packs(p.out.data, DType::kBF16, p.channels, p.out_row_stride);
  const auto kernel = whole ? clamp_kernel<true> : clamp_kernel<false>;
  const RowGrid grid = plan_row_grid(1, p.rows, p.channels);
  kernel<<<grid.blocks, grid.threads, 0, compute_stream(context)>>>(p);
  check_launch("clamp");
}

void CudaBackend::gated_activation(const Context& context, const GatedActivationParams& params) {
  if (params.rows == 0 || params.channels == 0) return;
  GatedActivationParams p = params;
  merge_rows(p.rows, p.channels, p.gate_row_stride, p.x_row_stride, p.out_row_stride);
  const bool whole = has_whole_packs(p.gate.data, DType::kBF16, p.channels, p.gate_row_stride) &&
                     has_whole_packs(p.x.data, DType::kBF16, p.channels, p.x_row_stride) &&
                     has_whole_packs(p.out.data, DType::kBF16, p.channels, p.out_row_stride);
  const auto kernel = whole ? gated_activation_kernel<true> : gated_activation_kernel<false>;
  const RowGrid grid = plan_row_grid(1, p.rows, p.channels);
  kernel<<<grid.blocks, grid.threads, 0, compute_stream(context)>>>(p);
  check_launch("gated_activation");
}

}  // namespace chipmunk::cuda
