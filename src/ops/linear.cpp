#include "ops/linear.h"

#include <algorithm>
#include <string>

#include "backend.h"
#include "chipmunk/error.h"
#include "ops/check.h"
#include "ops/linear_params.h"

namespace chipmunk::ops {
namespace {

HeadEpilogue head_epilogue(const Context& context, const LinearEpilogue& epilogue, int64_t tokens,
                           int64_t out_features) {
  const LinearHeads& heads = epilogue.heads;
  if (heads.count == 0) return {};
  if (heads.head_dim < 1) fail_argument("linear: head dimension", "at least 1", heads.head_dim);
  if (2 * heads.count * heads.head_dim > out_features) {
    fail_argument("linear: columns of q's and k's heads", "at most " + std::to_string(out_features),
                  2 * heads.count * heads.head_dim);
  }
  if (epilogue.activation != Activation::kNone || epilogue.gate || epilogue.residual || epilogue.addend) {
    throw Error(ErrorCode::kInvalidArgument, "expected heads without activation, gate, residual and addend", "linear");
  }
  check_qk_norm_rope(context, heads.norm_rope, tokens, heads.head_dim, "linear");
  return {in(heads.norm_rope.q_weight),
          in(heads.norm_rope.k_weight),
          static_cast<const float*>(heads.norm_rope.cos.data()),
          static_cast<const float*>(heads.norm_rope.sin.data()),
          heads.count,
          heads.head_dim,
          heads.norm_rope.epsilon};
}

/// Of rows: 1, or another where it is tokens that lie side by side.
int64_t column_stride(const Tensor& rows, const char* what) {
  if (rows.stride(2) == 1 || rows.dim(2) <= 1) return 1;
  if (rows.stride(1) != 1) check_inner_dense(rows, what);
  return rows.stride(2);
}

bool has_dense_tokens(const LinearParams& params) {
  return params.x_column_stride != 1 || params.out_column_stride != 1;
}

LinearParams params_of(const Context& context, const LinearCall& call) {
  LinearParams params = linear_params(context, call.x, call.layer, call.out, call.epilogue);
  params.overlaps_last = call.overlaps_last;
  return params;
}

std::vector<LinearParams> params_of(const Context& context, const std::vector<LinearCall>& calls) {
  std::vector<LinearParams> params;
  for (const LinearCall& call : calls) params.push_back(params_of(context, call));
  return params;
}

bool takes(const Context& context, const std::vector<LinearParams>& params) {
  return std::none_of(params.begin(), params.end(), has_dense_tokens) ||
         context.backend().takes_dense_tokens(params.data(), static_cast<int>(params.size()));
}

void check_taken(const Context& context, const std::vector<LinearParams>& params) {
  if (takes(context, params)) return;
  const bool is_x =
      std::any_of(params.begin(), params.end(), [](const LinearParams& p) { return p.x_column_stride != 1; });
  throw Error(ErrorCode::kUnsupported,
              "expected a dense innermost dimension, found dense tokens, which this device does not take here",
              is_x ? "linear: x" : "linear: out");
}

bool fuses_addend(const Context& context, const std::vector<LinearParams>& params) {
  return context.backend().fuses_addend(params.data(), static_cast<int>(params.size()));
}

/// out = residual + gate * addend, which then is the residual.
void add_first(const Context& context, LinearParams* params) {
  LinearParams& p = *params;
  if (p.addend.data == nullptr) return;
  context.backend().gated_add(context, {.x = p.addend,
                                        .gate = p.gate,
                                        .residual = p.residual,
                                        .out = p.out,
                                        .batch = p.batch,
                                        .rows = p.rows,
                                        .channels = p.out_features,
                                        .x_batch_stride = p.addend_batch_stride,
                                        .x_row_stride = p.addend_row_stride,
                                        .gate_batch_stride = p.gate_batch_stride,
                                        .residual_batch_stride = p.residual_batch_stride,
                                        .residual_row_stride = p.residual_row_stride,
                                        .out_batch_stride = p.out_batch_stride,
                                        .out_row_stride = p.out_row_stride});
  p.addend = {};
  p.residual = {p.out.data, p.out.dtype};
  p.residual_batch_stride = p.out_batch_stride;
  p.residual_row_stride = p.out_row_stride;
}

/// Checks what depends on the device, and takes away addends that it does not fuse.
void prepare(const Context& context, std::vector<LinearParams>* params) {
  check_taken(context, *params);
  const bool any_addend =
      std::any_of(params->begin(), params->end(), [](const LinearParams& p) { return p.addend.data != nullptr; });
  if (!any_addend || fuses_addend(context, *params)) return;
  for (LinearParams& p : *params) {
    add_first(context, &p);
    p.overlaps_last = false;
  }
}

}  // namespace

LinearParams linear_params(const Context& context, const Tensor& x, const Linear& layer, const Tensor& out_tensor,
                           const LinearEpilogue& epilogue) {
  check_present(context, x, "linear: x");
  check_present(context, layer.weight, "linear: weight");
  if (layer.weight.rank() != 2) fail_shape("linear: weight", "rank 2", layer.weight);
  const Tensor rows = as_batched_rows(x, "linear: x");
  const int64_t in_features = layer.in_features();
  const int64_t out_features = layer.out_features();
  const Dims out_shape = {rows.dim(0), rows.dim(1), out_features};
  if (rows.dim(2) != in_features) fail_shape("linear: x", "in_features " + std::to_string(in_features), x);
  check_present(context, out_tensor, "linear: out");
  const Tensor result = as_batched_rows(out_tensor, "linear: out");
  check_shape(context, result, out_shape, "linear: out");
  check_optional_shape(context, layer.bias, {out_features}, "linear: bias");
  check_optional_shape(context, epilogue.gate, {rows.dim(0), out_features}, "linear: gate");
  const auto added_rows = [&](const Tensor& added, const char* what) {
    if (!added) return added;
    const Tensor batched = as_batched_rows(added, what);
    check_shape(context, batched, out_shape, what);
    check_activation(context, batched, what);
    return batched;
  };
  const Tensor residual = added_rows(epilogue.residual, "linear: residual");
  const Tensor addend = added_rows(epilogue.addend, "linear: addend");
  if (addend && !(epilogue.gate && residual)) {
    throw Error(ErrorCode::kInvalidArgument, "expected an addend with gate and residual", "linear: addend");
  }
  check_activation(context, x, "linear: x");
  check_activation(context, out_tensor, "linear: out");
  check_floating(layer.weight, "linear: weight");
  check_inner_dense(layer.weight, "linear: weight");
  if (layer.bias) {
    check_floating(layer.bias, "linear: bias");
    check_dense(layer.bias, "linear: bias");
  }
  if (layer.scale) {
    check_f32(context, layer.scale, {out_features}, "linear: scale");
    check_dtype(layer.weight, DType::kF8E4M3, "linear: weight with a scale");
  }
  if (epilogue.gate) {
    check_activation(context, epilogue.gate, "linear: gate");
    check_inner_dense(epilogue.gate, "linear: gate");
  }

  LinearParams params{};
  params.x = in(rows);
  params.weight = in(layer.weight);
  params.bias = in(layer.bias);
  params.gate = in(epilogue.gate);
  params.residual = in(residual);
  params.addend = in(addend);
  params.out = out(result);
  params.batch = rows.dim(0);
  params.rows = rows.dim(1);
  params.in_features = in_features;
  params.out_features = out_features;
  params.x_batch_stride = rows.stride(0);
  params.x_row_stride = rows.stride(1);
  params.weight_row_stride = layer.weight.stride(0);
  params.gate_batch_stride = epilogue.gate ? epilogue.gate.stride(0) : 0;
  params.residual_batch_stride = residual ? residual.stride(0) : 0;
  params.residual_row_stride = residual ? residual.stride(1) : 0;
  params.addend_batch_stride = addend ? addend.stride(0) : 0;
  params.addend_row_stride = addend ? addend.stride(1) : 0;
  params.out_batch_stride = result.stride(0);
  params.out_row_stride = result.stride(1);
  params.x_column_stride = column_stride(rows, "linear: x");
  params.out_column_stride = column_stride(result, "linear: out");
  params.activation = epilogue.activation;
  params.weight_scale = static_cast<const float*>(layer.scale.data());
  params.heads = head_epilogue(context, epilogue, params.rows, out_features);
  return params;
}

void linear_into(const Context& context, const Tensor& x, const Linear& layer, const Tensor& out,
                 const LinearEpilogue& epilogue) {
  linear_into(context, {x, layer, out, epilogue});
}

void linear_into(const Context& context, const LinearCall& call) {
  std::vector<LinearParams> params = {params_of(context, call)};
  prepare(context, &params);
  context.backend().linear(context, params[0]);
}

void linear_pair_into(const Context& context, const LinearCall& first, const LinearCall& second) {
  std::vector<LinearParams> params = params_of(context, {first, second});
  prepare(context, &params);
  context.backend().linear_pair(context, {params[0], params[1]});
}

bool fuses_addend(const Context& context, const LinearCall& call) {
  return fuses_addend(context, params_of(context, std::vector{call}));
}

bool takes_dense_tokens(const Context& context, const std::vector<LinearCall>& calls) {
  return takes(context, params_of(context, calls));
}

Tensor linear(const Context& context, const Tensor& x, const Linear& layer, const LinearEpilogue& epilogue) {
  check_present(context, x, "linear: x");
  check_present(context, layer.weight, "linear: weight");
  if (x.rank() < 1 || layer.weight.rank() != 2) fail_shape("linear: x, weight", "rank 2 or 3, rank 2", x);
  Dims shape = x.shape();
  shape[shape.rank() - 1] = layer.out_features();
  Tensor result = context.empty(shape);
  linear_into(context, x, layer, result, epilogue);
  return result;
}

}  // namespace chipmunk::ops
