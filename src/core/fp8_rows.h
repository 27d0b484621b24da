#pragma once

#include <bit>
#include <cstdint>

#include "core/dtype.h"
#include "core/host_device.h"

/// How rows become f8_e4m3 with a factor a row: value = factor * e4m3. Every backend quantises to the same bits, and so
/// do weights when they are loaded (docs/fp8.md).
namespace chipmunk {

/// The largest f8_e4m3.
constexpr float kMaxF8E4M3 = 448.0f;
/// 2^-100. Rows whose largest magnitude is smaller, rows of zeros among them, are quantised as if it were this: the
/// factor and its inverse stay normal numbers.
constexpr uint32_t kMinRowMagnitudeBits = 0x0d800000u;

struct Fp8RowScale {
  float scale;    ///< factor of the row's e4m3 values
  float inverse;  ///< what the row is multiplied with before it is rounded, saturating
};

/// magnitude_bits: the largest |x| of a row as the bits of an f32, compared as integers: any NaN is the largest.
/// What is computed from a row with an infinity or a NaN is NaN.
CHIPMUNK_HOST_DEVICE inline Fp8RowScale fp8_row_scale(uint32_t magnitude_bits) {
  const uint32_t bits = magnitude_bits > kMinRowMagnitudeBits ? magnitude_bits : kMinRowMagnitudeBits;
#ifdef __CUDA_ARCH__
  const float magnitude = __uint_as_float(bits);
#else
  const float magnitude = std::bit_cast<float>(bits);
#endif
  return {magnitude / kMaxF8E4M3, kMaxF8E4M3 / magnitude};
}

/// The scale of a row of n values of any floating dtype, on the host.
Fp8RowScale fp8_row_scale(const void* row, DType dtype, int64_t n);
/// out[0 ..] = the e4m3 values of elements [begin, end) of a row whose scale this is.
void quantize_fp8_row(const void* row, DType dtype, int64_t begin, int64_t end, const Fp8RowScale& scale, uint8_t* out);
/// out[i] = factor * values[i].
void dequantize_fp8_row(const uint8_t* values, float factor, int64_t n, float* out);

}  // namespace chipmunk
