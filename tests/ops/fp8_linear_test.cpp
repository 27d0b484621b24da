#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/float_formats.h"
#include "core/fp8_rows.h"
#include "ops/elementwise.h"
#include "ops/fp8_rows.h"
#include "ops/linear.h"
#include "support/op_test.h"

/// Linears whose weights are f8_e4m3 with a scale a row, against float64 loops over exactly quantised operands.
namespace chipmunk::test {
namespace {

/// Row after row of the last dimension, quantised and back, by the definition.
Array rounded_rows(const Array& x) {
  Array rounded = x;
  const int64_t columns = x.shape[x.shape.rank() - 1];
  const int64_t rows = columns == 0 ? 0 : numel(x.shape) / columns;
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<float> row;
    for (int64_t c = 0; c < columns; ++c) row.push_back(static_cast<float>(x[r * columns + c]));
    const Fp8RowScale scale = fp8_row_scale(row.data(), DType::kF32, columns);
    std::vector<uint8_t> values(row.size());
    quantize_fp8_row(row.data(), DType::kF32, 0, columns, scale, values.data());
    for (int64_t c = 0; c < columns; ++c) {
      rounded.values[static_cast<size_t>(r * columns + c)] =
          static_cast<double>(f8_e4m3_to_float(values[static_cast<size_t>(c)])) * static_cast<double>(scale.scale);
    }
  }
  return rounded;
}

struct Fp8LinearCase : NamedCase {
  int64_t batch, rows, in_features, out_features;
  Activation activation = Activation::kNone;
  bool bias = false, gate = false, residual = false;
  int64_t pad = 0;  // of every operand that may be a view
};

const Fp8LinearCase kCases[] = {
    // sizes of which cuBLASLt has a product of f8
    {"plain", 1, 64, 64, 64},
    {"bias", 1, 33, 48, 80, Activation::kNone, true},
    {"gelu", 1, 128, 256, 512, Activation::kGeluTanh, true},
    {"gelu_without_bias", 1, 40, 64, 96, Activation::kGeluTanh},
    {"relu", 1, 40, 64, 96, Activation::kRelu, true},
    {"gate", 1, 64, 128, 256, Activation::kNone, true, true},
    {"residual", 1, 64, 128, 256, Activation::kNone, true, false, true},
    {"gate_residual", 1, 200, 768, 384, Activation::kNone, true, true, true},
    {"gate_residual_without_bias", 1, 200, 384, 384, Activation::kNone, false, true, true},
    {"gate_residual_batched", 3, 48, 64, 96, Activation::kNone, true, true, true},
    {"odd_rows_batched", 3, 29, 64, 96, Activation::kNone, true, true, true},
    {"batched", 3, 48, 64, 96, Activation::kGeluTanh, true},
    {"strided", 2, 29, 32, 48, Activation::kNone, true, true, true, 16},
    {"few_rows", 1, 1, 256, 128, Activation::kNone, true},
    // what it fuses not
    {"silu", 1, 40, 64, 96, Activation::kSilu, true},
    {"everything", 2, 40, 64, 96, Activation::kGeluTanh, true, true, true},
    // sizes of which it has none
    {"one_by_one", 1, 1, 1, 1},
    {"odd_depth", 1, 40, 33, 64, Activation::kNone, true},
    {"odd_columns", 1, 40, 64, 33, Activation::kGeluTanh, true},
    {"primes", 1, 127, 257, 131, Activation::kNone, true, true, true},
    {"primes_batched", 3, 13, 31, 37, Activation::kSilu, true, true, true, 1},
    {"strided_by_three", 2, 29, 32, 48, Activation::kNone, true, true, true, 3},
    {"few_odd_rows", 2, 3, 97, 67, Activation::kNone, true},
};

class Fp8LinearTest : public OpCaseTest<Fp8LinearCase> {
 protected:
  /// A weight as loading quantises it, and what it stands for.
  Linear quantized_layer(const Tensor& weight, const Tensor& bias) {
    const ops::Fp8Rows rows = ops::quantize_rows(context(), weight);
    return {rows.values, bias, rows.scales};
  }
};

TEST_P(Fp8LinearTest, MatchesReference) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Fp8LinearCase& c = test_case();
  const Tensor x = random_view({c.batch, c.rows, c.in_features}, c.pad);
  const Tensor weight = random({c.out_features, c.in_features}, 0.5f);
  Linear layer = quantized_layer(weight, c.bias ? random({c.out_features}) : Tensor());
  if (c.pad > 0) {
    // The same weight as columns of a wider one.
    const Tensor wide = context().empty({c.out_features, c.in_features + c.pad}, DType::kF8E4M3);
    const Tensor part = wide.slice(1, c.pad, c.in_features + c.pad);
    ops::copy_into(context(), layer.weight, part);
    layer.weight = part;
  }
  const Dims out_shape = {c.batch, c.rows, c.out_features};
  ops::LinearEpilogue epilogue;
  epilogue.activation = c.activation;
  if (c.gate) epilogue.gate = random_view({c.batch, c.out_features}, c.pad);
  if (c.residual) epilogue.residual = random_view(out_shape, c.pad);

  const GuardedView out =
      make_guarded_view(context(), out_shape, std::max<int64_t>(c.pad, 2), context().activation_dtype());
  ops::linear_into(context(), x, layer, out.view, epilogue);
  const Reference expected = reference_linear({rounded_rows(read(x)), rounded_rows(read(weight)), read(layer.bias),
                                               read(epilogue.gate), read(epilogue.residual), c.activation});
  const double factor = 4.0 + std::sqrt(static_cast<double>(c.in_features));
  expect_close(read(out.view), expected, factor);
  expect_untouched(context(), out);
  const Array dense = read(ops::linear(context(), x, layer, epilogue));
  expect_equal(read(ops::linear(context(), x, layer, epilogue)), dense);
  if (!c.residual) return;
  ops::linear_into(context(), x, layer, epilogue.residual, epilogue);
  expect_close(read(epilogue.residual), expected, factor);
}

CHIPMUNK_INSTANTIATE(Fp8LinearTest, ::testing::ValuesIn(kCases));

class Fp8RowsTest : public OpCaseTest<OnlyCase> {
 protected:
  Linear random_layer(int64_t out_features, int64_t in_features) {
    const ops::Fp8Rows rows = ops::quantize_rows(context(), random({out_features, in_features}));
    return {rows.values, {}, rows.scales};
  }
};

TEST_P(Fp8RowsTest, RowsAreQuantisedToTheSameBits) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  for (const int64_t columns : {1, 7, 64, 3072, 4100, 12288, 15360, 20001}) {
    const Tensor x = random_view({2, 5, columns}, 8);
    const ops::Fp8Rows rows = ops::quantize_rows(context(), x);
    const Tensor values = context().to_host(rows.values);
    const Array scales = read(rows.scales), source = read(x);
    for (int64_t r = 0; r < 10; ++r) {
      std::vector<float> row;
      for (int64_t c = 0; c < columns; ++c) row.push_back(static_cast<float>(source[r * columns + c]));
      const Fp8RowScale scale = fp8_row_scale(row.data(), DType::kF32, columns);
      std::vector<uint8_t> expected(row.size());
      quantize_fp8_row(row.data(), DType::kF32, 0, columns, scale, expected.data());
      EXPECT_EQ(scales[r], static_cast<double>(scale.scale));
      EXPECT_EQ(std::memcmp(values.data_as<uint8_t>() + r * columns, expected.data(), expected.size()), 0)
          << columns << " columns, row " << r;
    }
  }
}

TEST_P(Fp8RowsTest, DequantisedRowsAreTheirValues) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Tensor x = random({37, 90});
  const ops::Fp8Rows rows = ops::quantize_rows(context(), x);
  const Array expected = rounded_rows(read(x));
  const Array all = read(ops::dequantize_rows(context(), rows.values, rows.scales));
  const Array part = read(ops::dequantize_rows(context(), rows.values.slice(1, 30, 90), rows.scales));
  for (int64_t i = 0; i < 37 * 90; ++i) {
    EXPECT_NEAR(all[i], expected[i], epsilon() * std::abs(expected[i])) << i;
    if (i % 90 < 30) continue;
    EXPECT_EQ(part[i / 90 * 60 + i % 90 - 30], all[i]) << i;
  }
}

TEST_P(Fp8RowsTest, ZeroTinyAndHugeRows) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  // One row each: zeros, the smallest numbers, numbers below the floor of scales, the largest, one outlier.
  constexpr int64_t kColumns = 64;
  const float scales[] = {0.0f, 1e-38f, 1e-32f, 1e-20f, 1.0f, 1e20f, 1e36f};
  std::vector<float> values;
  for (const float scale : scales) {
    for (int64_t c = 0; c < kColumns; ++c) values.push_back(scale * (static_cast<float>(c) / kColumns));
  }
  for (int64_t c = 0; c < kColumns; ++c) values.push_back(c == 5 ? 1e6f : 1e-3f);
  const int64_t rows = static_cast<int64_t>(values.size()) / kColumns;
  const Tensor x = from_floats({rows, kColumns}, values);
  const Linear layer = random_layer(48, kColumns);
  const Array out = read(ops::linear(context(), x, layer));
  for (int64_t i = 0; i < 48; ++i) EXPECT_EQ(out[i], 0.0) << "a row of zeros";
  const Array x_rows = read(x.unsqueeze(0));
  const Tensor weight = ops::dequantize_rows(context(), layer.weight, layer.scale);
  Reference expected = reference_linear({rounded_rows(x_rows), read(weight), {}, {}, {}, Activation::kNone});
  expected.value.shape = {rows, 48};
  expect_close(out, expected, 16.0);
}

TEST_P(Fp8RowsTest, NanAndInfinityReachTheirRowAndNoOther) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const int64_t columns : {64, 33}) {
      std::vector<float> values(static_cast<size_t>(20 * columns), 1.0f);
      values[static_cast<size_t>(5 * columns + 3)] = bad;
      const Tensor x = from_floats({20, columns}, values);
      const Array out = read(ops::linear(context(), x, random_layer(32, columns)));
      for (int64_t i = 0; i < 20 * 32; ++i) EXPECT_EQ(std::isnan(out[i]), i / 32 == 5) << i;
      // Of a weight, its output feature.
      const ops::Fp8Rows weight = ops::quantize_rows(context(), x);
      const Array columns_out = read(ops::linear(context(), random({40, columns}), {weight.values, {}, weight.scales}));
      for (int64_t i = 0; i < 40 * 20; ++i) EXPECT_EQ(std::isnan(columns_out[i]), i % 20 == 5) << i;
    }
  }
}

TEST_P(Fp8RowsTest, HeadsAreNormedAndRotatedAfterwards) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Tensor x = random({1, 24, 64});
  const Linear layer = random_layer(6 * 32, 64);
  ops::LinearEpilogue epilogue;
  epilogue.heads = {2, 32, {random({32}), random({32}), random({24, 16}, DType::kF32), random({24, 16}, DType::kF32)}};
  const Tensor fused = ops::linear(context(), x, layer, epilogue), plain = ops::linear(context(), x, layer);
  const auto heads = [&](int64_t part) { return plain.slice(2, part * 64, (part + 1) * 64).reshape({1, 24, 2, 32}); };
  ops::qk_norm_rope(context(), heads(0), heads(1), epilogue.heads.norm_rope);
  expect_equal(read(fused), read(plain));
}

CHIPMUNK_INSTANTIATE(Fp8RowsTest, ::testing::Values(OnlyCase{}));

}  // namespace
}  // namespace chipmunk::test
