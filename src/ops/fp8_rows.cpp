#include "ops/fp8_rows.h"

#include "backend.h"
#include "ops/check.h"

namespace chipmunk::ops {

Fp8Rows quantize_rows(const Context& context, const Tensor& x) {
  check_present(context, x, "quantize_rows: x");
  const Tensor rows = as_batched_rows(x, "quantize_rows: x");
  check_activation(context, x, "quantize_rows: x");
  check_inner_dense(x, "quantize_rows: x");
  Fp8Rows result{context.empty(x.shape(), DType::kF8E4M3), context.empty({rows.dim(0), rows.dim(1)}, DType::kF32)};
  if (x.rank() == 2) result.scales = result.scales.reshape({x.dim(0)});
  QuantizeRowsParams params{};
  params.x = in(rows);
  params.out = out(result.values);
  params.scales = result.scales.data_as<float>();
  params.batch = rows.dim(0);
  params.rows = rows.dim(1);
  params.channels = rows.dim(2);
  params.x_batch_stride = rows.stride(0);
  params.x_row_stride = rows.stride(1);
  params.scale_batch_stride = rows.dim(1);
  context.backend().quantize_rows(context, params);
  return result;
}

Tensor dequantize_rows(const Context& context, const Tensor& values, const Tensor& scales) {
  check_present(context, values, "dequantize_rows: values");
  if (values.rank() != 2) fail_shape("dequantize_rows: values", "rank 2 [R, C]", values);
  check_dtype(values, DType::kF8E4M3, "dequantize_rows: values");
  check_inner_dense(values, "dequantize_rows: values");
  check_f32(context, scales, {values.dim(0)}, "dequantize_rows: scales");
  Tensor result = context.empty(values.shape());
  DequantizeRowsParams params{};
  params.x = in(values);
  params.scales = scales.data_as<float>();
  params.out = out(result);
  params.rows = values.dim(0);
  params.channels = values.dim(1);
  params.x_row_stride = values.stride(0);
  context.backend().dequantize_rows(context, params);
  return result;
}

}  // namespace chipmunk::ops
