#pragma once

#include "core/context.h"

/// Ops on channels-last images: dense [B, height, width, C].
namespace chipmunk {

/// A 2-D convolution's weights as the backends take them.
struct Conv2d {
  Tensor weight;  ///< dense [C_out, kernel_height, kernel_width, C_in] in the dtype of activations
  Tensor bias;    ///< [C_out], or empty
};

namespace ops {

struct Conv2dOptions {
  int64_t stride = 1;
  int64_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  Tensor residual;  ///< added to the result: its shape; or empty

  /// The padding that keeps the size for an odd kernel and stride 1.
  static Conv2dOptions same(const Conv2d& layer, Tensor residual = {});
};

/// Weights as files store them, [C_out, C_in, kernel_height, kernel_width] of any floating dtype, for this device.
Conv2d make_conv2d(const Context& context, const Tensor& weight, const Tensor& bias);

Tensor conv2d(const Context& context, const Tensor& x, const Conv2d& layer, const Conv2dOptions& options);

/// Each pixel becomes factor x factor equal ones.
Tensor upsample_nearest(const Context& context, const Tensor& x, int64_t factor);

/// Cross-fades the first `extent` slices of `tile` with the last `extent` ones of `previous` along one dimension
/// (1 = rows, 2 = columns): slice i becomes previous (1 - i/extent) + tile (i/extent). In place on tile.
/// extent is cut to what both have along it.
void blend_into(const Context& context, const Tensor& previous, const Tensor& tile, int dimension, int64_t extent);

/// round(clamp(x / 2 + 0.5, 0, 1) * 255) as u8 of the same shape; NaN gives 0. x: dense.
Tensor quantize_image(const Context& context, const Tensor& x);

}  // namespace ops
}  // namespace chipmunk
