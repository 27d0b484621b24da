#include "core/fp8_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "core/float_formats.h"

namespace chipmunk {
namespace {

std::vector<float> there_and_back(const std::vector<float>& row) {
  const auto n = static_cast<int64_t>(row.size());
  const Fp8RowScale scale = fp8_row_scale(row.data(), DType::kF32, n);
  std::vector<uint8_t> values(row.size());
  quantize_fp8_row(row.data(), DType::kF32, 0, n, scale, values.data());
  std::vector<float> result(row.size());
  dequantize_fp8_row(values.data(), scale.scale, n, result.data());
  return result;
}

TEST(Fp8Rows, ErrorIsHalfAStepOfEachValue) {
  for (const float factor : {1e-28f, 1e-5f, 1.0f, 1e30f}) {
    std::vector<float> row;
    for (int i = 1; i <= 1000; ++i) row.push_back(factor * static_cast<float>(i) * (i % 3 == 0 ? -1.0f : 1.0f));
    const std::vector<float> result = there_and_back(row);
    for (size_t i = 0; i < row.size(); ++i) {
      // Three bits behind the leading one; the smallest normal value is 2^-6 of 448.
      EXPECT_LE(std::abs(result[i] - row[i]), std::max(std::abs(row[i]) * 0x1.001p-4f, factor * 2.2e-3f)) << row[i];
    }
    EXPECT_FLOAT_EQ(result.back(), row.back()) << "the largest magnitude is exact";
  }
}

TEST(Fp8Rows, RowsOfZerosAndOfTheSmallestNumbersStayFinite) {
  for (const float value : {0.0f, 1e-45f, 1e-38f}) {
    EXPECT_EQ(there_and_back({value, -value, value}), (std::vector<float>{0.0f, 0.0f, 0.0f})) << value;
  }
}

TEST(Fp8Rows, AnInfinityOrNanMakesItsOwnValueNan) {
  for (const float bad : {HUGE_VALF, -HUGE_VALF, std::numeric_limits<float>::quiet_NaN()}) {
    EXPECT_TRUE(std::isnan(there_and_back({1.0f, bad, 2.0f})[1]));
  }
}

TEST(Fp8Rows, PartsOfARowAreThoseOfTheWhole) {
  std::vector<float> row;
  for (int i = 0; i < 100; ++i) row.push_back(std::sin(static_cast<float>(i)));
  const Fp8RowScale scale = fp8_row_scale(row.data(), DType::kF32, 100);
  std::vector<uint8_t> whole(100), part(30);
  quantize_fp8_row(row.data(), DType::kF32, 0, 100, scale, whole.data());
  quantize_fp8_row(row.data(), DType::kF32, 41, 71, scale, part.data());
  EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + 41));
}

TEST(Fp8Rows, EveryDtypeIsReadAsTheValuesItHolds) {
  std::vector<uint16_t> bf16, f16;
  std::vector<uint8_t> f8;
  std::vector<float> row;
  for (int i = 0; i < 64; ++i) {
    row.push_back(f8_e4m3_to_float(static_cast<uint8_t>(i)));
    bf16.push_back(float_to_bf16(row.back()));
    f16.push_back(float_to_f16(row.back()));
    f8.push_back(static_cast<uint8_t>(i));
  }
  const Fp8RowScale scale = fp8_row_scale(row.data(), DType::kF32, 64);
  std::vector<uint8_t> expected(64), got(64);
  quantize_fp8_row(row.data(), DType::kF32, 0, 64, scale, expected.data());
  const std::pair<const void*, DType> sources[] = {
      {bf16.data(), DType::kBF16}, {f16.data(), DType::kF16}, {f8.data(), DType::kF8E4M3}};
  for (const auto& [source, dtype] : sources) {
    EXPECT_EQ(fp8_row_scale(source, dtype, 64).scale, scale.scale) << to_string(dtype);
    quantize_fp8_row(source, dtype, 0, 64, scale, got.data());
    EXPECT_EQ(got, expected) << to_string(dtype);
  }
}

}  // namespace
}  // namespace chipmunk
