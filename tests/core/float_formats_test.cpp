#include "core/float_formats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace chipmunk {
namespace {

/// An independent reading of a small float: the sum of its bits' values.
double decode(uint32_t bits, int exponent_bits, int mantissa_bits, bool has_infinity) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const uint32_t exponent = (bits >> mantissa_bits) & ((1u << exponent_bits) - 1u);
  const uint32_t mantissa = bits & ((1u << mantissa_bits) - 1u);
  const double sign = (bits >> (exponent_bits + mantissa_bits)) & 1u ? -1.0 : 1.0;
  if (exponent == (1u << exponent_bits) - 1u) {
    if (has_infinity) return mantissa == 0 ? sign * HUGE_VAL : std::nan("");
    if (mantissa == (1u << mantissa_bits) - 1u) return std::nan("");
  }
  double value = exponent == 0 ? 0.0 : std::pow(2.0, static_cast<double>(exponent) - bias);
  for (int bit = 0; bit < mantissa_bits; ++bit) {
    if ((mantissa >> bit) & 1u) {
      const double scale = exponent == 0 ? 1.0 : static_cast<double>(exponent);
      value += std::pow(2.0, scale - bias - mantissa_bits + bit);
    }
  }
  return sign * value;
}

void expect_same(float got, double expected, uint32_t bits) {
  if (std::isnan(expected)) {
    EXPECT_TRUE(std::isnan(got)) << bits;
  } else {
    EXPECT_EQ(static_cast<double>(got), expected) << bits;
  }
}

TEST(FloatFormats, EveryBitPatternDecodes) {
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    expect_same(bf16_to_float(static_cast<uint16_t>(bits)), decode(bits, 8, 7, true), bits);
    expect_same(f16_to_float(static_cast<uint16_t>(bits)), decode(bits, 5, 10, true), bits);
  }
  for (uint32_t bits = 0; bits < 0x100u; ++bits) {
    expect_same(f8_e4m3_to_float(static_cast<uint8_t>(bits)), decode(bits, 4, 3, false), bits);
    expect_same(f8_e5m2_to_float(static_cast<uint8_t>(bits)), decode(bits, 5, 2, true), bits);
  }
}

TEST(FloatFormats, EveryValueRoundTrips) {
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const float bf16 = bf16_to_float(static_cast<uint16_t>(bits));
    const float f16 = f16_to_float(static_cast<uint16_t>(bits));
    if (!std::isnan(bf16)) {
      EXPECT_EQ(float_to_bf16(bf16), bits);
    }
    if (!std::isnan(f16)) {
      EXPECT_EQ(float_to_f16(f16), bits);
    }
  }
  for (uint32_t bits = 0; bits < 0x100u; ++bits) {
    EXPECT_EQ(float_to_f8_e4m3_saturating(f8_e4m3_to_float(static_cast<uint8_t>(bits))) & 0x7fu, bits & 0x7fu);
    if ((bits & 0x7fu) == 0x7fu) continue;
    EXPECT_EQ(float_to_f8_e4m3_saturating(f8_e4m3_to_float(static_cast<uint8_t>(bits))), bits);
  }
  EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(std::nanf("")))));
  EXPECT_TRUE(std::isnan(f16_to_float(float_to_f16(std::nanf("")))));
}

TEST(FloatFormats, RoundsToNearestEven) {
  // Halfway between two neighbours the even one is taken; a hair more goes up.
  for (uint32_t bits = 0; bits < 0x7bffu; ++bits) {
    const double low = decode(bits, 5, 10, true), high = decode(bits + 1, 5, 10, true);
    const float middle = static_cast<float>((low + high) / 2.0);
    EXPECT_EQ(float_to_f16(middle), bits % 2 == 0 ? bits : bits + 1);
    EXPECT_EQ(float_to_f16(std::nextafter(middle, 1e9f)), bits + 1);
  }
  for (uint32_t bits = 0; bits < 0x7eu; ++bits) {
    const double low = decode(bits, 4, 3, false), high = decode(bits + 1, 4, 3, false);
    const float middle = static_cast<float>((low + high) / 2.0);
    EXPECT_EQ(float_to_f8_e4m3_saturating(middle), bits % 2 == 0 ? bits : bits + 1);
    EXPECT_EQ(float_to_f8_e4m3_saturating(std::nextafter(middle, 1e9f)), bits + 1);
    EXPECT_EQ(float_to_f8_e4m3_saturating(-std::nextafter(middle, 0.0f)), bits | 0x80u);
  }
  EXPECT_EQ(float_to_bf16(1.0f + 0x1p-8f), 0x3f80u);
  EXPECT_EQ(float_to_bf16(1.0f + 3 * 0x1p-8f), 0x3f82u);
  EXPECT_EQ(float_to_f16(65519.9f), 0x7bffu);
  EXPECT_EQ(float_to_f16(65520.0f), 0x7c00u);
  EXPECT_EQ(float_to_f16(-1e9f), 0xfc00u);
}

TEST(FloatFormats, LargeValuesSaturate) {
  for (const float value : {448.0f, 449.0f, 464.0f, 465.0f, 1e9f, HUGE_VALF}) {
    EXPECT_EQ(float_to_f8_e4m3_saturating(value), 0x7eu) << value;
    EXPECT_EQ(float_to_f8_e4m3_saturating(-value), 0xfeu) << value;
  }
  EXPECT_EQ(float_to_f8_e4m3_saturating(std::nanf("")) & 0x7fu, 0x7fu);
}

TEST(FloatFormats, LoadReadsEveryDtype) {
  const int64_t integer = 1 << 20;
  const uint8_t byte = 200;
  EXPECT_EQ(load_as_float(&integer, DType::kI64, 0), 1048576.0f);
  EXPECT_EQ(load_as_float(&byte, DType::kU8, 0), 200.0f);
}

}  // namespace
}  // namespace chipmunk
