#pragma once

#include "core/context.h"
#include "ops/linear.h"

namespace chipmunk::ops {

/// Rows in f8_e4m3, each with a factor (core/fp8_rows.h).
struct Fp8Rows {
  Tensor values;  ///< f8_e4m3, dense
  Tensor scales;  ///< f32, of values' shape without its last dimension
};

/// x: [T, C] or [B, T, C] in the dtype of activations; rows and batches may be strided.
Fp8Rows quantize_rows(const Context& context, const Tensor& x);
/// values [R, C], rows may be strided, with scales [R]: in the dtype of activations.
Tensor dequantize_rows(const Context& context, const Tensor& values, const Tensor& scales);

}  // namespace chipmunk::ops
