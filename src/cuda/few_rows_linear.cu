#include <algorithm>

#include "chipmunk/error.h"
#include "cuda/activations.cuh"
#include "cuda/cuda_error.h"
#include "cuda/float_types.cuh"
#include "cuda/launch.h"
#include "cuda/linear_epilogue.h"
#include "cuda/reduce.cuh"

namespace chipmunk::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
/// Above this cuBLASLt's tensor core kernels win.
constexpr int64_t kMaxRows = 8;

struct Arguments {
  const bf16* x;
  const void* weight;
  const void* bias;  // or null, dtype bias_dtype
  const bf16* gate;
  const bf16* residual;
  bf16* out;
  DType bias_dtype;
  Activation activation;
  int64_t rows, all_rows;  // of a batch; of all batches
  int64_t depth, columns;
  int64_t x_batch_stride, x_row_stride, weight_row_stride;
  int64_t gate_batch_stride, residual_batch_stride, residual_row_stride, out_batch_stride, out_row_stride;
};

__device__ void write(const Arguments& a, int64_t row, int64_t column, float product) {
  const int64_t batch = row / a.rows;
  const int64_t token = row - batch * a.rows;
  if (a.bias != nullptr) product += load_any(a.bias, a.bias_dtype, column);
  float value = activate(a.activation, product);
  if (a.gate != nullptr) value *= to_float(a.gate[batch * a.gate_batch_stride + column]);
  if (a.residual != nullptr) {
    value += to_float(a.residual[batch * a.residual_batch_stride + token * a.residual_row_stride + column]);
  }
  a.out[batch * a.out_batch_stride + token * a.out_row_stride + column] = from_float<bf16>(value);
}

/// One warp an output feature: its weights are read once, in vectors of kVector elements, for kRows rows of x.
template <class Weight, int kVector, int kRows>
__global__ void __launch_bounds__(kThreads) few_rows_linear(const Arguments a) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  if (column >= a.columns) return;
  const Weight* weight = static_cast<const Weight*>(a.weight) + column * a.weight_row_stride;
  for (int64_t first = 0; first < a.all_rows; first += kRows) {
    const bf16* x[kRows];
    float sums[kRows] = {};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      // Rows past the end repeat the last one and are not written.
      const int64_t row = min(first + r, a.all_rows - 1);
      x[r] = a.x + row / a.rows * a.x_batch_stride + row % a.rows * a.x_row_stride;
    }
#pragma unroll 4
    for (int64_t k = lane * kVector; k < a.depth; k += kWarpSize * kVector) {
      const Vec<Weight, kVector> w = load_vec<Weight, kVector>(weight + k);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const Vec<bf16, kVector> values = load_vec<bf16, kVector>(x[r] + k);
#pragma unroll
        for (int i = 0; i < kVector; ++i) sums[r] = fmaf(to_float(values.values[i]), to_float(w.values[i]), sums[r]);
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float sum = warp_sum(sums[r]);
      if (lane == 0 && first + r < a.all_rows) write(a, first + r, column, sum);
    }
  }
}

template <class Weight, int kVector>
void launch(cudaStream_t stream, const Arguments& a) {
  const auto blocks = static_cast<unsigned>(ceil_div(a.columns, kWarps));
  if (a.all_rows == 1) {
    few_rows_linear<Weight, kVector, 1><<<blocks, kThreads, 0, stream>>>(a);
  } else {
    few_rows_linear<Weight, kVector, 4><<<blocks, kThreads, 0, stream>>>(a);
  }
}

template <class Weight>
void launch(cudaStream_t stream, const Arguments& a) {
  constexpr int kVector = 8;  // 16 bytes of x; f32 weights take two loads
  const bool vectors = a.depth % kVector == 0 &&
                       is_aligned(a.x, sizeof(bf16), kVector * sizeof(bf16), a.x_batch_stride, a.x_row_stride) &&
                       is_aligned(a.weight, sizeof(Weight), kVector * sizeof(Weight), a.weight_row_stride);
  if (vectors) {
    launch<Weight, kVector>(stream, a);
  } else {
    launch<Weight, 1>(stream, a);
  }
}

}  // namespace

bool is_few_rows(const LinearParams& params) { return params.batch * params.rows <= kMaxRows; }

void launch_few_rows_linear(cudaStream_t stream, const LinearParams& params) {
  Arguments a{};
  a.x = static_cast<const bf16*>(params.x.data);
  a.weight = params.weight.data;
  a.bias = params.bias.data;
  a.gate = static_cast<const bf16*>(params.gate.data);
  a.residual = static_cast<const bf16*>(params.residual.data);
  a.out = static_cast<bf16*>(params.out.data);
  a.bias_dtype = params.bias.dtype;
  a.activation = params.activation;
  a.rows = params.rows;
  a.all_rows = params.batch * params.rows;
  a.depth = params.in_features;
  a.columns = params.out_features;
  a.x_batch_stride = params.x_batch_stride;
  a.x_row_stride = params.x_row_stride;
  a.weight_row_stride = params.weight_row_stride;
  a.gate_batch_stride = params.gate_batch_stride;
  a.residual_batch_stride = params.residual_batch_stride;
  a.residual_row_stride = params.residual_row_stride;
  a.out_batch_stride = params.out_batch_stride;
  a.out_row_stride = params.out_row_stride;
  switch (params.weight.dtype) {
    case DType::kF32: launch<float>(stream, a); break;
    case DType::kBF16: launch<bf16>(stream, a); break;
    case DType::kF16: launch<f16>(stream, a); break;
    case DType::kF8E4M3: launch<f8_e4m3>(stream, a); break;
    case DType::kF8E5M2: launch<f8_e5m2>(stream, a); break;
    default: throw Error(ErrorCode::kUnsupported, "weights that are not floating", "linear");
  }
  check_launch("linear");
}

}  // namespace chipmunk::cuda
