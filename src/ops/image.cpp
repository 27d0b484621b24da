#include "ops/image.h"

#include <algorithm>
#include <utility>

#include "backend.h"
#include "chipmunk/error.h"
#include "ops/check.h"
#include "ops/elementwise.h"

namespace chipmunk::ops {
namespace {

void check_image(const Context& context, const Tensor& x, const char* what) {
  check_present(context, x, what);
  if (x.rank() != 4) fail_shape(what, "rank 4 [B, height, width, C]", x);
  check_activation(context, x, what);
}

}  // namespace

Conv2dOptions Conv2dOptions::same(const Conv2d& layer, Tensor residual) {
  const int64_t vertical = layer.weight.dim(1) / 2;
  const int64_t horizontal = layer.weight.dim(2) / 2;
  return {1, vertical, horizontal, vertical, horizontal, std::move(residual)};
}

Conv2d make_conv2d(const Context& context, const Tensor& weight, const Tensor& bias) {
  if (weight.rank() != 4) fail_shape("make_conv2d: weight", "rank 4 [C_out, C_in, height, width]", weight);
  const Tensor on_device = context.to_device(weight);
  const Tensor bias_on_device = bias ? context.to_device(bias) : bias;
  check_optional_shape(context, bias_on_device, {weight.dim(0)}, "make_conv2d: bias");
  return {to_dense(context, on_device.permute({0, 2, 3, 1}), context.activation_dtype()), bias_on_device};
}

Tensor conv2d(const Context& context, const Tensor& x, const Conv2d& layer, const Conv2dOptions& options) {
  check_image(context, x, "conv2d: x");
  check_dense(x, "conv2d: x");
  check_present(context, layer.weight, "conv2d: weight");
  if (layer.weight.rank() != 4) fail_shape("conv2d: weight", "rank 4 [C_out, height, width, C_in]", layer.weight);
  check_activation(context, layer.weight, "conv2d: weight");
  check_dense(layer.weight, "conv2d: weight");
  const int64_t out_channels = layer.weight.dim(0), kernel_height = layer.weight.dim(1),
                kernel_width = layer.weight.dim(2);
  if (x.dim(3) != layer.weight.dim(3)) {
    fail_shape("conv2d: x", std::to_string(layer.weight.dim(3)) + " channels", x);
  }
  if (layer.bias) {
    check_shape(context, layer.bias, {out_channels}, "conv2d: bias");
    check_floating(layer.bias, "conv2d: bias");
    check_dense(layer.bias, "conv2d: bias");
  }
  const int64_t padded_height = x.dim(1) + options.pad_top + options.pad_bottom;
  const int64_t padded_width = x.dim(2) + options.pad_left + options.pad_right;
  if (options.stride < 1 || padded_height < kernel_height || padded_width < kernel_width) {
    fail_shape("conv2d: x", "a padded image of at least the kernel's size and a stride of 1 or more", x);
  }
  const Dims out_shape = {x.dim(0), (padded_height - kernel_height) / options.stride + 1,
                          (padded_width - kernel_width) / options.stride + 1, out_channels};
  if (options.residual) {
    check_shape(context, options.residual, out_shape, "conv2d: residual");
    check_activation(context, options.residual, "conv2d: residual");
    check_dense(options.residual, "conv2d: residual");
  }
  Tensor result = context.empty(out_shape);

  Conv2dParams params{};
  params.x = in(x);
  params.weight = in(layer.weight);
  params.bias = in(layer.bias);
  params.residual = in(options.residual);
  params.out = out(result);
  params.batch = x.dim(0);
  params.in_height = x.dim(1);
  params.in_width = x.dim(2);
  params.in_channels = x.dim(3);
  params.out_height = out_shape[1];
  params.out_width = out_shape[2];
  params.out_channels = out_channels;
  params.kernel_height = kernel_height;
  params.kernel_width = kernel_width;
  params.stride = options.stride;
  params.pad_top = options.pad_top;
  params.pad_left = options.pad_left;
  params.pad_bottom = options.pad_bottom;
  params.pad_right = options.pad_right;
  context.backend().conv2d(context, params);
  return result;
}

Tensor upsample_nearest(const Context& context, const Tensor& x, int64_t factor) {
  check_image(context, x, "upsample_nearest: x");
  check_dense(x, "upsample_nearest: x");
  if (factor < 1) {
    throw Error(ErrorCode::kInvalidArgument, "expected a factor of 1 or more, found " + std::to_string(factor),
                "upsample_nearest");
  }
  Tensor result = context.empty({x.dim(0), x.dim(1) * factor, x.dim(2) * factor, x.dim(3)});
  UpsampleNearestParams params{};
  params.x = in(x);
  params.out = out(result);
  params.batch = x.dim(0);
  params.height = x.dim(1);
  params.width = x.dim(2);
  params.channels = x.dim(3);
  params.factor = factor;
  context.backend().upsample_nearest(context, params);
  return result;
}

void blend_into(const Context& context, const Tensor& previous, const Tensor& tile, int dimension, int64_t extent) {
  check_image(context, previous, "blend: previous");
  check_image(context, tile, "blend: tile");
  check_dense(previous, "blend: previous");
  check_dense(tile, "blend: tile");
  if (dimension != 1 && dimension != 2) {
    throw Error(ErrorCode::kInvalidArgument, "expected dimension 1 or 2, found " + std::to_string(dimension), "blend");
  }
  for (int i : {0, 3 - dimension, 3}) {
    if (previous.dim(i) != tile.dim(i)) fail_shape("blend: previous", "tiles that match across the seam", previous);
  }
  extent = std::min({extent, previous.dim(dimension), tile.dim(dimension)});
  if (extent <= 0) return;

  const Tensor tail = previous.slice(dimension, previous.dim(dimension) - extent, previous.dim(dimension));
  BlendParams params{};
  params.previous = in(tail);
  params.out = out(tile);
  params.extent = extent;
  if (dimension == 1) {
    params.outer = tile.dim(0);
    params.inner = tile.dim(2) * tile.dim(3);
    params.previous_outer_stride = tail.stride(0);
    params.out_outer_stride = tile.stride(0);
  } else {
    params.outer = tile.dim(0) * tile.dim(1);
    params.inner = tile.dim(3);
    params.previous_outer_stride = tail.stride(1);
    params.out_outer_stride = tile.stride(1);
  }
  params.previous_stride = tail.stride(dimension);
  params.out_stride = tile.stride(dimension);
  context.backend().blend(context, params);
}

Tensor quantize_image(const Context& context, const Tensor& x) {
  check_present(context, x, "quantize_image: x");
  check_activation(context, x, "quantize_image: x");
  check_dense(x, "quantize_image: x");
  Tensor result = context.empty(x.shape(), DType::kU8);
  QuantizeImageParams params{};
  params.x = in(x);
  params.out = static_cast<uint8_t*>(result.data());
  params.count = x.numel();
  context.backend().quantize_image(context, params);
  return result;
}

}  // namespace chipmunk::ops
