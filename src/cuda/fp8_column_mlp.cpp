#include "cuda/cuda_backend.h"

namespace chipmunk::cuda {

void CudaBackend::column_mlp_of_values(const Context& context, const ColumnMlpParams& params) {
  require_fp8_linears();
  const int64_t rows = params.batch * params.rows, channels = params.channels;
  const Tensor rounded = context.empty({rows, channels}, DType::kF8E4M3);
  const Tensor scales = context.empty({rows}, DType::kF32);
  QuantizeRowsParams quantize{};
  quantize.x = params.x;
  quantize.out = {rounded.data(), rounded.dtype()};
  quantize.scales = scales.data_as<float>();
  quantize.batch = params.batch;
  quantize.rows = quantize.scale_batch_stride = params.rows;
  quantize.channels = channels;
  quantize.x_batch_stride = params.x_batch_stride;
  quantize.x_row_stride = params.x_row_stride;
  quantize_rows(context, quantize);

  const Tensor x = context.empty({rows, channels}), weight = context.empty({params.features, channels});
  dequantize_rows(
      context,
      {{rounded.data(), rounded.dtype()}, scales.data_as<float>(), {x.data(), x.dtype()}, rows, channels, channels});
  dequantize_rows(context, {params.weight1,
                            params.weight1_scale,
                            {weight.data(), weight.dtype()},
                            params.features,
                            channels,
                            params.weight1_row_stride});
  ColumnMlpParams values = params;
  values.x = {x.data(), x.dtype()};
  values.x_row_stride = channels;
  values.x_batch_stride = params.rows * channels;
  values.weight1 = {weight.data(), weight.dtype()};
  values.weight1_row_stride = channels;
  values.weight1_scale = nullptr;
  column_mlp(context, values);
}

}  // namespace chipmunk::cuda
