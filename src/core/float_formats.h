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

/// Element `index` of a buffer of any dtype, as float (integers rounded). For tests and small host-side reads.
float load_as_float(const void* data, DType dtype, int64_t index);

inline float bf16_to_float(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

inline uint16_t float_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  // A NaN whose payload sits in the low half would round to infinity; keep it a quiet NaN.
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace chipmunk
