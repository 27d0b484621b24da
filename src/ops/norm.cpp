#include "ops/norm.h"

#include <utility>

#include "backend.h"
#include "chipmunk/error.h"
#include "ops/check.h"

namespace chipmunk::ops {
namespace {

void check_channel_vector(const Context& context, const Tensor& tensor, int64_t channels, const char* what) {
  check_shape(context, tensor, {channels}, what);
  check_floating(tensor, what);
  check_dense(tensor, what);
}

void bind_update(const Context& context, const GatedUpdate& update, const Tensor& x, const Tensor& rows,
                 const Tensor& result, LayerNormParams* params) {
  check_shape(context, update.value, x.shape(), "layer_norm: update");
  check_shape(context, update.gate, {rows.dim(0), rows.dim(2)}, "layer_norm: gate");
  for (const auto& [tensor, what] :
       {std::pair<const Tensor&, const char*>{update.value, "layer_norm: update"}, {update.gate, "layer_norm: gate"}}) {
    check_activation(context, tensor, what);
    check_inner_dense(tensor, what);
  }
  if (result.data() == x.data() && x.numel() > 0) {
    throw Error(ErrorCode::kInvalidArgument, "expected other memory than x's, which takes the update",
                "layer_norm: out");
  }
  const Tensor update_rows = as_batched_rows(update.value, "layer_norm: update");
  params->update = in(update_rows);
  params->gate = in(update.gate);
  params->updated = out(rows);
  params->update_batch_stride = update_rows.stride(0);
  params->update_row_stride = update_rows.stride(1);
  params->gate_batch_stride = update.gate.stride(0);
}

LayerNormParams layer_norm_params(const Context& context, const LayerNormCall& call) {
  const auto& [x, result, epsilon, affine, modulation, update] = call;
  check_present(context, x, "layer_norm: x");
  check_shape(context, result, x.shape(), "layer_norm: out");
  check_activation(context, x, "layer_norm: x");
  check_activation(context, result, "layer_norm: out");
  check_inner_dense(x, "layer_norm: x");
  check_inner_dense(result, "layer_norm: out");
  const Tensor rows = as_batched_rows(x, "layer_norm: x");
  const Tensor out_rows = as_batched_rows(result, "layer_norm: out");
  const int64_t batch = rows.dim(0), channels = rows.dim(2);
  if (affine.weight.empty() != affine.bias.empty() || modulation.scale.empty() != modulation.shift.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "weight and bias, scale and shift come in pairs", "layer_norm");
  }
  if (affine.weight) {
    check_channel_vector(context, affine.weight, channels, "layer_norm: weight");
    check_channel_vector(context, affine.bias, channels, "layer_norm: bias");
  }
  if (modulation.scale) {
    for (const Tensor& part : {modulation.scale, modulation.shift}) {
      check_shape(context, part, {batch, channels}, "layer_norm: scale, shift");
      check_activation(context, part, "layer_norm: scale, shift");
      check_inner_dense(part, "layer_norm: scale, shift");
    }
    if (batch > 1 && modulation.scale.stride(0) != modulation.shift.stride(0)) {
      fail_shape("layer_norm: shift", "the batch stride of scale", modulation.shift);
    }
  }

  LayerNormParams params{};
  if (update.value || update.gate) bind_update(context, update, x, rows, result, &params);
  params.x = in(rows);
  params.weight = in(affine.weight);
  params.bias = in(affine.bias);
  params.scale = in(modulation.scale);
  params.shift = in(modulation.shift);
  params.out = out(out_rows);
  params.batch = batch;
  params.rows = rows.dim(1);
  params.channels = channels;
  params.x_batch_stride = rows.stride(0);
  params.x_row_stride = rows.stride(1);
  params.modulation_batch_stride = modulation.scale ? modulation.scale.stride(0) : 0;
  params.out_batch_stride = out_rows.stride(0);
  params.out_row_stride = out_rows.stride(1);
  params.epsilon = epsilon;
  return params;
}

}  // namespace

void layer_norm_into(const Context& context, const Tensor& x, const Tensor& out, float epsilon,
                     const NormAffine& affine, const Modulation& modulation, const GatedUpdate& update) {
  context.backend().layer_norm(context, layer_norm_params(context, {x, out, epsilon, affine, modulation, update}));
}

void layer_norm_pair_into(const Context& context, const LayerNormCall& first, const LayerNormCall& second) {
  context.backend().layer_norm_pair(context, {layer_norm_params(context, first), layer_norm_params(context, second)});
}

Tensor layer_norm(const Context& context, const Tensor& x, float epsilon, const NormAffine& affine,
                  const Modulation& modulation) {
  Tensor result = context.empty(x.shape());
  layer_norm_into(context, x, result, epsilon, affine, modulation);
  return result;
}

Tensor rms_norm(const Context& context, const Tensor& x, const Tensor& weight, float epsilon) {
  check_present(context, x, "rms_norm: x");
  check_activation(context, x, "rms_norm: x");
  const Tensor rows = as_rows(x, "rms_norm: x");
  check_channel_vector(context, weight, rows.dim(1), "rms_norm: weight");
  Tensor result = context.empty(x.shape());

  RmsNormParams params{};
  params.x = in(rows);
  params.weight = in(weight);
  params.out = out(result);
  params.rows = rows.dim(0);
  params.channels = rows.dim(1);
  params.x_row_stride = rows.stride(0);
  params.out_row_stride = rows.dim(1);
  params.epsilon = epsilon;
  context.backend().rms_norm(context, params);
  return result;
}

Tensor group_norm(const Context& context, const Tensor& x, const NormAffine& affine, int64_t groups, float epsilon,
                  Activation activation) {
  check_present(context, x, "group_norm: x");
  if (x.rank() != 4) fail_shape("group_norm: x", "rank 4 [B, height, width, C]", x);
  check_activation(context, x, "group_norm: x");
  check_dense(x, "group_norm: x");
  const int64_t channels = x.dim(3);
  check_channel_vector(context, affine.weight, channels, "group_norm: weight");
  check_channel_vector(context, affine.bias, channels, "group_norm: bias");
  if (groups < 1 || channels % groups != 0) {
    fail_shape("group_norm: x", "channels divisible into " + std::to_string(groups) + " groups", x);
  }
  Tensor result = context.empty(x.shape());

  GroupNormParams params{};
  params.x = in(x);
  params.weight = in(affine.weight);
  params.bias = in(affine.bias);
  params.out = out(result);
  params.batch = x.dim(0);
  params.pixels = x.dim(1) * x.dim(2);
  params.channels = channels;
  params.groups = groups;
  params.epsilon = epsilon;
  params.activation = activation;
  context.backend().group_norm(context, params);
  return result;
}

}  // namespace chipmunk::ops
