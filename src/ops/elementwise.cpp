#include "ops/elementwise.h"

#include <utility>

#include "backend.h"
#include "chipmunk/error.h"
#include "ops/check.h"

namespace chipmunk::ops {
namespace {

void fill_shape(const Tensor& tensor, int* rank, int64_t* shape) {
  *rank = tensor.rank();
  for (int i = 0; i < tensor.rank(); ++i) shape[i] = tensor.dim(i);
}

void fill_strides(const Tensor& tensor, int64_t* strides) {
  for (int i = 0; i < tensor.rank(); ++i) strides[i] = tensor.stride(i);
}

}  // namespace

void copy_into(const Context& context, const Tensor& x, const Tensor& result) {
  check_present(context, x, "copy: x");
  check_shape(context, result, x.shape(), "copy: out");
  if (x.dtype() != result.dtype()) {
    check_floating(x, "copy: x");
    check_floating(result, "copy: out");
  }
  CopyParams params{};
  params.x = in(x);
  params.out = out(result);
  fill_shape(x, &params.rank, params.shape);
  fill_strides(x, params.x_strides);
  fill_strides(result, params.out_strides);
  context.backend().copy(context, params);
}

Tensor to_dense(const Context& context, const Tensor& x, DType dtype) {
  check_present(context, x, "to_dense: x");
  if (x.dtype() == dtype && x.is_contiguous()) return x;
  Tensor result = context.empty(x.shape(), dtype);
  copy_into(context, x, result);
  return result;
}

void axpby_into(const Context& context, float alpha, const Tensor& a, float beta, const Tensor& b,
                const Tensor& result) {
  check_present(context, a, "axpby: a");
  check_shape(context, b, a.shape(), "axpby: b");
  check_shape(context, result, a.shape(), "axpby: out");
  check_floating(a, "axpby: a");
  check_floating(b, "axpby: b");
  check_floating(result, "axpby: out");
  AxpbyParams params{};
  params.a = in(a);
  params.b = in(b);
  params.out = out(result);
  fill_shape(a, &params.rank, params.shape);
  fill_strides(a, params.a_strides);
  fill_strides(b, params.b_strides);
  fill_strides(result, params.out_strides);
  params.alpha = alpha;
  params.beta = beta;
  context.backend().axpby(context, params);
}

void activation_into(const Context& context, Activation activation, const Tensor& x, const Tensor& result) {
  check_present(context, x, "activation: x");
  check_shape(context, result, x.shape(), "activation: out");
  check_activation(context, x, "activation: x");
  check_activation(context, result, "activation: out");
  const Tensor rows = as_rows(x, "activation: x");
  const Tensor out_rows = as_rows(result, "activation: out");
  ActivationParams params{};
  params.x = in(rows);
  params.out = out(out_rows);
  params.rows = rows.dim(0);
  params.channels = rows.dim(1);
  params.x_row_stride = rows.stride(0);
  params.out_row_stride = out_rows.stride(0);
  params.activation = activation;
  context.backend().activation(context, params);
}

Tensor activation(const Context& context, Activation activation, const Tensor& x) {
  Tensor result = context.empty(x.shape());
  activation_into(context, activation, x, result);
  return result;
}

void clamp_into(const Context& context, const Tensor& x, float low, float high, const Tensor& result) {
  check_present(context, x, "clamp: x");
  check_shape(context, result, x.shape(), "clamp: out");
  check_activation(context, x, "clamp: x");
  check_activation(context, result, "clamp: out");
  if (!(low <= high)) {
    throw Error(ErrorCode::kInvalidArgument,
                "expected low <= high, found " + std::to_string(low) + " and " + std::to_string(high), "clamp");
  }
  const Tensor rows = as_rows(x, "clamp: x");
  const Tensor out_rows = as_rows(result, "clamp: out");
  ClampParams params{};
  params.x = in(rows);
  params.out = out(out_rows);
  params.rows = rows.dim(0);
  params.channels = rows.dim(1);
  params.x_row_stride = rows.stride(0);
  params.out_row_stride = out_rows.stride(0);
  params.low = low;
  params.high = high;
  context.backend().clamp(context, params);
}

Tensor gated_activation(const Context& context, Activation activation, const Tensor& gate, const Tensor& x) {
  check_present(context, gate, "gated_activation: gate");
  check_shape(context, x, gate.shape(), "gated_activation: x");
  check_activation(context, gate, "gated_activation: gate");
  check_activation(context, x, "gated_activation: x");
  const Tensor gate_rows = as_rows(gate, "gated_activation: gate");
  const Tensor x_rows = as_rows(x, "gated_activation: x");
  Tensor result = context.empty(x.shape());
  GatedActivationParams params{};
  params.gate = in(gate_rows);
  params.x = in(x_rows);
  params.out = out(result);
  params.rows = x_rows.dim(0);
  params.channels = x_rows.dim(1);
  params.gate_row_stride = gate_rows.stride(0);
  params.x_row_stride = x_rows.stride(0);
  params.out_row_stride = x_rows.dim(1);
  params.activation = activation;
  context.backend().gated_activation(context, params);
  return result;
}

void gated_add_into(const Context& context, const Tensor& x, const Tensor& gate, const Tensor& residual,
                    const Tensor& result) {
  check_present(context, x, "gated_add: x");
  const Tensor rows = as_batched_rows(x, "gated_add: x");
  check_shape(context, residual, x.shape(), "gated_add: residual");
  check_shape(context, result, x.shape(), "gated_add: out");
  check_shape(context, gate, {rows.dim(0), rows.dim(2)}, "gated_add: gate");
  const std::pair<const Tensor&, const char*> operands[] = {
      {x, "gated_add: x"}, {gate, "gated_add: gate"}, {residual, "gated_add: residual"}, {result, "gated_add: out"}};
  for (const auto& [tensor, what] : operands) {
    check_activation(context, tensor, what);
    check_inner_dense(tensor, what);
  }
  const Tensor residual_rows = as_batched_rows(residual, "gated_add: residual");
  const Tensor out_rows = as_batched_rows(result, "gated_add: out");
  GatedAddParams params{};
  params.x = in(rows);
  params.gate = in(gate);
  params.residual = in(residual_rows);
  params.out = out(out_rows);
  params.batch = rows.dim(0);
  params.rows = rows.dim(1);
  params.channels = rows.dim(2);
  params.x_batch_stride = rows.stride(0);
  params.x_row_stride = rows.stride(1);
  params.gate_batch_stride = gate.stride(0);
  params.residual_batch_stride = residual_rows.stride(0);
  params.residual_row_stride = residual_rows.stride(1);
  params.out_batch_stride = out_rows.stride(0);
  params.out_row_stride = out_rows.stride(1);
  context.backend().gated_add(context, params);
}

Tensor embedding(const Context& context, const Tensor& indices, const Tensor& table) {
  check_present(context, indices, "embedding: indices");
  check_present(context, table, "embedding: table");
  if (indices.rank() != 1) fail_shape("embedding: indices", "rank 1", indices);
  if (table.rank() != 2) fail_shape("embedding: table", "rank 2", table);
  check_dtype(indices, DType::kI32, "embedding: indices");
  check_dense(indices, "embedding: indices");
  check_floating(table, "embedding: table");
  check_dense(table, "embedding: table");
  Tensor result = context.empty({indices.dim(0), table.dim(1)});
  EmbeddingParams params{};
  params.indices = static_cast<const int32_t*>(indices.data());
  params.table = in(table);
  params.out = out(result);
  params.count = indices.dim(0);
  params.table_rows = table.dim(0);
  params.channels = table.dim(1);
  context.backend().embedding(context, params);
  return result;
}

Tensor timestep_embedding(const Context& context, const Tensor& arguments, int64_t channels, float max_period) {
  check_present(context, arguments, "timestep_embedding: arguments");
  if (arguments.rank() != 1) fail_shape("timestep_embedding: arguments", "rank 1", arguments);
  check_dtype(arguments, DType::kF32, "timestep_embedding: arguments");
  check_dense(arguments, "timestep_embedding: arguments");
  if (channels < 2 || channels % 2 != 0) {
    throw Error(ErrorCode::kInvalidArgument, "expected an even number of channels, found " + std::to_string(channels),
                "timestep_embedding");
  }
  Tensor result = context.empty({arguments.dim(0), channels});
  TimestepEmbeddingParams params{};
  params.arguments = static_cast<const float*>(arguments.data());
  params.out = out(result);
  params.batch = arguments.dim(0);
  params.channels = channels;
  params.max_period = max_period;
  context.backend().timestep_embedding(context, params);
  return result;
}

}  // namespace chipmunk::ops
