#include <algorithm>

#include "cuda/activations.cuh"
#include "cuda/cuda_error.h"
#include "cuda/float_types.cuh"
#include "cuda/launch.h"
#include "cuda/linear_epilogue.h"

namespace chipmunk::cuda {
namespace {

constexpr int kThreads = 256;

struct Arguments {
  const bf16* product;
  const float *row_scales, *column_scales;  // both or neither
  const void* bias;                         // or null, dtype bias_dtype
  const bf16* gate;
  const bf16* residual;
  bf16* out;
  DType bias_dtype;
  Activation activation;
  int64_t rows;  // of a batch
  int columns;
  int64_t product_batch_stride, product_row_stride;
  int64_t gate_batch_stride;
  int64_t residual_batch_stride, residual_row_stride;
  int64_t out_batch_stride, out_row_stride;
};

/// One thread a row's kVector columns; grid [columns, rows, batch].
template <int kVector>
__global__ void __launch_bounds__(kThreads) linear_epilogue(const Arguments a) {
  const int column = (static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x)) * kVector;
  if (column >= a.columns) return;
  const int64_t batch = blockIdx.z;
  using Vector = Vec<bf16, kVector>;
  Vector gate{};
  if (a.gate != nullptr) gate = load_vec<bf16, kVector>(a.gate + batch * a.gate_batch_stride + column);
  float scale[kVector], bias[kVector] = {};
#pragma unroll
  for (int i = 0; i < kVector; ++i) scale[i] = a.column_scales != nullptr ? a.column_scales[column + i] : 1.0f;
  if (a.bias != nullptr) {
#pragma unroll
    for (int i = 0; i < kVector; ++i) bias[i] = load_any(a.bias, a.bias_dtype, column + i);
  }
  for (int64_t row = blockIdx.y; row < a.rows; row += gridDim.y) {
    const Vector product =
        load_vec<bf16, kVector>(a.product + batch * a.product_batch_stride + row * a.product_row_stride + column);
    Vector residual{};
    if (a.residual != nullptr) {
      residual =
          load_vec<bf16, kVector>(a.residual + batch * a.residual_batch_stride + row * a.residual_row_stride + column);
    }
    const float row_scale = a.row_scales != nullptr ? a.row_scales[batch * a.rows + row] : 1.0f;
    Vector out;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      float value = activate(a.activation, to_float(product.values[i]) * (row_scale * scale[i]) + bias[i]);
      if (a.gate != nullptr) value *= to_float(gate.values[i]);
      if (a.residual != nullptr) value += to_float(residual.values[i]);
      out.values[i] = from_float<bf16>(value);
    }
    store_vec(a.out + batch * a.out_batch_stride + row * a.out_row_stride + column, out);
  }
}

}  // namespace

void launch_linear_epilogue(cudaStream_t stream, const void* product, int64_t product_batch_stride,
                            int64_t product_row_stride, const LinearParams& params, bool with_bias,
                            const float* product_scales) {
  Arguments a{};
  a.product = static_cast<const bf16*>(product);
  a.row_scales = product_scales;
  a.column_scales = product_scales != nullptr ? params.weight_scale : nullptr;
  a.bias = with_bias ? params.bias.data : nullptr;
  a.gate = static_cast<const bf16*>(params.gate.data);
  a.residual = static_cast<const bf16*>(params.residual.data);
  a.out = static_cast<bf16*>(params.out.data);
  a.bias_dtype = params.bias.dtype;
  a.activation = params.activation;
  a.rows = params.rows;
  a.columns = static_cast<int>(params.out_features);
  a.product_batch_stride = product_batch_stride;
  a.product_row_stride = product_row_stride;
  a.gate_batch_stride = params.gate_batch_stride;
  a.residual_batch_stride = params.residual_batch_stride;
  a.residual_row_stride = params.residual_row_stride;
  a.out_batch_stride = params.out_batch_stride;
  a.out_row_stride = params.out_row_stride;

  constexpr int kVector = 8;
  constexpr size_t kBytes = kVector * sizeof(bf16);
  const bool vectors = params.out_features % kVector == 0 &&
                       is_aligned(a.product, sizeof(bf16), kBytes, product_batch_stride, product_row_stride) &&
                       is_aligned(a.gate, sizeof(bf16), kBytes, a.gate_batch_stride) &&
                       is_aligned(a.residual, sizeof(bf16), kBytes, a.residual_batch_stride, a.residual_row_stride) &&
                       is_aligned(a.out, sizeof(bf16), kBytes, a.out_batch_stride, a.out_row_stride);
  const int width = vectors ? kVector : 1;
  const dim3 grid(static_cast<unsigned>(ceil_div(params.out_features, int64_t{kThreads} * width)),
                  static_cast<unsigned>(std::min(params.rows, kMaxGridYZ)), static_cast<unsigned>(params.batch));
  if (vectors) {
    linear_epilogue<kVector><<<grid, kThreads, 0, stream>>>(a);
  } else {
    linear_epilogue<1><<<grid, kThreads, 0, stream>>>(a);
  }
  check_launch("linear");
}

}  // namespace chipmunk::cuda
