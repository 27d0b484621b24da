#include <algorithm>

#include "core/fp8_rows.h"
#include "cuda/cuda_backend.h"
#include "cuda/cuda_error.h"
#include "cuda/float_types.cuh"
#include "cuda/launch.h"
#include "cuda/quantize_rows.h"

namespace chipmunk::cuda {
namespace {

struct Arguments {
  const bf16* x;
  void* out;
  float* scales;
  int64_t rows;  // of a batch
  int64_t channels;
  int64_t x_batch_stride, x_row_stride, scale_batch_stride;

  __device__ const bf16* row_of_x(int64_t row) const {
    return x + row / rows * x_batch_stride + row % rows * x_row_stride;
  }
  __device__ float& scale(int64_t row) const { return scales[row / rows * scale_batch_stride + row % rows]; }
};

/// The bits of |x|: as integers they are ordered as the values are, and a NaN is the largest.
__device__ uint32_t magnitude_bits(bf16 x) { return __float_as_uint(to_float(x)) & 0x7fffffffu; }

__device__ __nv_fp8_storage_t to_e4m3(float x) { return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3); }

template <class T>
__device__ T quantized(bf16 x, float inverse);
template <>
__device__ f8_e4m3 quantized<f8_e4m3>(bf16 x, float inverse) {
  f8_e4m3 result;
  result.__x = to_e4m3(to_float(x) * inverse);
  return result;
}
template <>
__device__ bf16 quantized<bf16>(bf16 x, float inverse) {
  // Exact: bf16 has more of everything.
  return from_float<bf16>(to_float(quantized<f8_e4m3>(x, inverse)));
}

/// Every thread receives the largest value of its block.
template <int kThreads>
__device__ uint32_t block_max_bits(uint32_t bits) {
  constexpr int kWarps = kThreads / kWarpSize;
  __shared__ uint32_t of_warps[kWarps];
  bits = __reduce_max_sync(0xffffffffu, bits);
  if (threadIdx.x % kWarpSize == 0) of_warps[threadIdx.x / kWarpSize] = bits;
  __syncthreads();
  uint32_t largest = of_warps[0];
#pragma unroll
  for (int i = 1; i < kWarps; ++i) largest = max(largest, of_warps[i]);
  return largest;
}

/// A block a row, which stays in registers between the maximum and the rounding: at most kThreads kPacks kVector
/// channels, a multiple of kVector.
template <class T, int kThreads, int kPacks>
__global__ void __launch_bounds__(kThreads) quantize_short_rows(const Arguments a) {
  constexpr int kVector = 8;
  const int64_t row = blockIdx.x;
  const bf16* x = a.row_of_x(row);
  const int packs = static_cast<int>(a.channels) / kVector;
  Vec<bf16, kVector> values[kPacks];
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    const int pack = i * kThreads + static_cast<int>(threadIdx.x);
    values[i] = pack < packs ? load_vec<bf16, kVector>(x + pack * kVector) : Vec<bf16, kVector>{};
  }
  uint32_t bits = 0;
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
#pragma unroll
    for (int k = 0; k < kVector; ++k) bits = max(bits, magnitude_bits(values[i].values[k]));
  }
  const Fp8RowScale scale = fp8_row_scale(block_max_bits<kThreads>(bits));
  if (threadIdx.x == 0) a.scale(row) = scale.scale;
  T* out = static_cast<T*>(a.out) + row * a.channels;
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    const int pack = i * kThreads + static_cast<int>(threadIdx.x);
    if (pack >= packs) break;
    Vec<T, kVector> rounded;
#pragma unroll
    for (int k = 0; k < kVector; ++k) rounded.values[k] = quantized<T>(values[i].values[k], scale.inverse);
    store_vec(out + pack * kVector, rounded);
  }
}

/// Rows of any length and alignment, read twice.
template <class T, int kThreads>
__global__ void __launch_bounds__(kThreads) quantize_any_rows(const Arguments a) {
  const int64_t row = blockIdx.x;
  const bf16* x = a.row_of_x(row);
  uint32_t bits = 0;
  for (int64_t i = threadIdx.x; i < a.channels; i += kThreads) bits = max(bits, magnitude_bits(x[i]));
  const Fp8RowScale scale = fp8_row_scale(block_max_bits<kThreads>(bits));
  if (threadIdx.x == 0) a.scale(row) = scale.scale;
  T* out = static_cast<T*>(a.out) + row * a.channels;
  for (int64_t i = threadIdx.x; i < a.channels; i += kThreads) out[i] = quantized<T>(x[i], scale.inverse);
}

template <class T>
void launch(cudaStream_t stream, const Arguments& a, unsigned all_rows) {
  constexpr int kVector = 8;
  constexpr int kFewThreads = 128, kFewPacks = 4, kThreads = 256, kPacks = 8;
  const bool vectors = a.channels % kVector == 0 &&
                       is_aligned(a.x, sizeof(bf16), kVector * sizeof(bf16), a.x_batch_stride, a.x_row_stride) &&
                       is_aligned(a.out, sizeof(T), kVector * sizeof(T));
  if (vectors && a.channels <= kFewThreads * kFewPacks * kVector) {
    quantize_short_rows<T, kFewThreads, kFewPacks><<<all_rows, kFewThreads, 0, stream>>>(a);
  } else if (vectors && a.channels <= kThreads * kPacks * kVector) {
    quantize_short_rows<T, kThreads, kPacks><<<all_rows, kThreads, 0, stream>>>(a);
  } else {
    quantize_any_rows<T, kThreads><<<all_rows, kThreads, 0, stream>>>(a);
  }
}

/// A block a row.
__global__ void dequantize(const DequantizeRowsParams p) {
  const int64_t row = blockIdx.x;
  const f8_e4m3* x = static_cast<const f8_e4m3*>(p.x.data) + row * p.x_row_stride;
  bf16* out = static_cast<bf16*>(p.out.data) + row * p.channels;
  const float scale = p.scales[row];
  for (int64_t i = threadIdx.x; i < p.channels; i += blockDim.x) out[i] = from_float<bf16>(scale * to_float(x[i]));
}

__global__ void gate_columns(const GateColumnsParams p) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= p.columns) return;
  const float gate = to_float(static_cast<const bf16*>(p.gate)[column]);
  const float bias = p.bias.data != nullptr ? load_any(p.bias.data, p.bias.dtype, column) : 0.0f;
  p.gated_scales[column] = gate * p.scales[column];
  static_cast<bf16*>(p.gated_bias)[column] = from_float<bf16>(gate * bias);
}

}  // namespace

void launch_quantize_rows(cudaStream_t stream, const QuantizeRowsParams& params) {
  if (params.batch * params.rows == 0) return;
  Arguments a{};
  a.x = static_cast<const bf16*>(params.x.data);
  a.out = params.out.data;
  a.scales = params.scales;
  a.rows = params.rows;
  a.channels = params.channels;
  a.x_batch_stride = params.x_batch_stride;
  a.x_row_stride = params.x_row_stride;
  a.scale_batch_stride = params.scale_batch_stride;
  const auto all_rows = static_cast<unsigned>(params.batch * params.rows);
  if (params.out.dtype == DType::kBF16) {
    launch<bf16>(stream, a, all_rows);
  } else {
    launch<f8_e4m3>(stream, a, all_rows);
  }
  check_launch("quantize_rows");
}

void launch_gate_columns(cudaStream_t stream, const GateColumnsParams& params) {
  constexpr int kThreads = 256;
  gate_columns<<<static_cast<unsigned>(ceil_div(params.columns, kThreads)), kThreads, 0, stream>>>(params);
  check_launch("gate_columns");
}

void CudaBackend::quantize_rows(const Context& context, const QuantizeRowsParams& params) {
  launch_quantize_rows(compute_stream(context), params);
}

void CudaBackend::dequantize_rows(const Context& context, const DequantizeRowsParams& params) {
  if (params.rows * params.channels == 0) return;
  constexpr int kThreads = 256;
  dequantize<<<static_cast<unsigned>(params.rows), kThreads, 0, compute_stream(context)>>>(params);
  check_launch("dequantize_rows");
}

}  // namespace chipmunk::cuda
