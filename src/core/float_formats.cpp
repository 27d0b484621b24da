#include "core/float_formats.h"

#include <cmath>
#include <limits>

#include "chipmunk/error.h"

namespace chipmunk {
namespace {

/// Value of a small binary float with the given field widths; the all-ones exponent is handled by the caller.
float decode_small_float(uint32_t sign, uint32_t exponent, uint32_t mantissa, int mantissa_bits, int bias) {
  const float fraction = static_cast<float>(mantissa) / static_cast<float>(1u << mantissa_bits);
  const float magnitude =
      exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1.0f + fraction, static_cast<int>(exponent) - bias);
  return sign != 0 ? -magnitude : magnitude;
}

}  // namespace

float f16_to_float(uint16_t bits) {
  const uint32_t sign = bits >> 15;
  const uint32_t exponent = (bits >> 10) & 0x1fu;
  const uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 0x1fu) {
    if (mantissa != 0) return std::numeric_limits<float>::quiet_NaN();
    return sign != 0 ? -std::numeric_limits<float>::infinity() : std::numeric_limits<float>::infinity();
  }
  return decode_small_float(sign, exponent, mantissa, 10, 15);
}

uint16_t float_to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7e00u;
  // 65520 is the first value that rounds to infinity.
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u;
  if (magnitude < 0x38800000u) {
    // Subnormal: the unit is 2^-24, so rounding the scaled magnitude gives the bits.
    const float scaled = std::ldexp(std::bit_cast<float>(magnitude), 24);
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(scaled)));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

float f8_e4m3_to_float(uint8_t bits) {
  if ((bits & 0x7fu) == 0x7fu) return std::numeric_limits<float>::quiet_NaN();
  return decode_small_float(bits >> 7, (bits >> 3) & 0xfu, bits & 0x7u, 3, 7);
}

float f8_e5m2_to_float(uint8_t bits) { return f16_to_float(static_cast<uint16_t>(bits << 8)); }

float load_as_float(const void* data, DType dtype, int64_t index) {
  switch (dtype) {
    case DType::kF32: return static_cast<const float*>(data)[index];
    case DType::kBF16: return bf16_to_float(static_cast<const uint16_t*>(data)[index]);
    case DType::kF16: return f16_to_float(static_cast<const uint16_t*>(data)[index]);
    case DType::kF8E4M3: return f8_e4m3_to_float(static_cast<const uint8_t*>(data)[index]);
    case DType::kF8E5M2: return f8_e5m2_to_float(static_cast<const uint8_t*>(data)[index]);
    case DType::kI32: return static_cast<float>(static_cast<const int32_t*>(data)[index]);
    case DType::kI64: return static_cast<float>(static_cast<const int64_t*>(data)[index]);
    case DType::kU8:
    case DType::kBool: return static_cast<float>(static_cast<const uint8_t*>(data)[index]);
  }
  throw Error(ErrorCode::kInternal, "load_as_float: unknown dtype");
}

}  // namespace chipmunk
