#pragma once

#include <bit>
#include <cstdint>

#include "core/dtype.h"

namespace chipmunk {

/// Scalar conversions between float and the narrow formats: exact to float, round to nearest even from float.
/// f8_e4m3 is the "fn" variant (no infinities, 0x7f is NaN), f8_e5m2 follows IEEE; both as stored by safetensors.
float bf16_to_float(uint16_t bits);
float f16_to_float(uint16_t bits);
float f8_e4m3_to_float(uint8_t bits);
float f8_e5m2_to_float(uint8_t bits);
uint16_t float_to_bf16(float value);
uint16_t float_to_f16(float value);
/// What is too large becomes 448, the largest value; a NaN stays one.
uint8_t float_to_f8_e4m3_saturating(float value);

/// Element `index` of a buffer of any dtype, as float (integers rounded). For tests and small host-side reads.
float load_as_float(const void* data, DType dtype, int64_t index);

inline float bf16_to_float(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

inline uint16_t float_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  // A NaN whose payload sits in the low half would round to infinity; keep it a quiet NaN.
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline uint8_t float_to_f8_e4m3_saturating(float value) {
  constexpr uint32_t kNan = 0x7f, kLargest = 0x7e, kLargestMagnitude = 0x43e00000u;
  // The smallest normal value, 2^-6; below it the unit is 2^-9, which is that of floats from 2^14 on.
  constexpr uint32_t kSmallestNormal = 0x3c800000u;
  constexpr float kRounder = 0x1p14f;
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 24) & 0x80u, magnitude = bits & 0x7fffffffu;
  // The biases are 127 and 7.
  const uint32_t normal = ((magnitude + 0x7ffffu + ((magnitude >> 20) & 1u)) >> 20) - (120u << 3);
  const uint32_t subnormal =
      std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + kRounder) - std::bit_cast<uint32_t>(kRounder);
  // Masks, and no branches, so that loops of it become SIMD code.
  const uint32_t is_subnormal = 0u - static_cast<uint32_t>(magnitude < kSmallestNormal);
  const uint32_t is_large = 0u - static_cast<uint32_t>(magnitude > kLargestMagnitude);
  const uint32_t is_nan = 0u - static_cast<uint32_t>(magnitude > 0x7f800000u);
  const uint32_t finite = (subnormal & is_subnormal) | (normal & ~is_subnormal & ~is_large) | (kLargest & is_large);
  return static_cast<uint8_t>(sign | finite | (kNan & is_nan));
}

}  // namespace chipmunk
