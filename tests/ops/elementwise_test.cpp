#include "ops/elementwise.h"

#include <cmath>
#include <limits>

#include "support/op_test.h"

namespace chipmunk::test {
namespace {

struct ActivationCase : NamedCase {
  Activation activation;
};

const ActivationCase kActivations[] = {
    {"none", Activation::kNone},        {"gelu_tanh", Activation::kGeluTanh},
    {"gelu_erf", Activation::kGeluErf}, {"quick_gelu", Activation::kQuickGelu},
    {"silu", Activation::kSilu},        {"relu", Activation::kRelu},
};

class ActivationTest : public OpCaseTest<ActivationCase> {
 protected:
  /// |x| as magnitude: a rounded argument changes the result by its slope times that.
  Reference reference(const Array& x) {
    Reference result{x, x};
    for (int64_t i = 0; i < static_cast<int64_t>(x.values.size()); ++i) {
      result.value[i] = reference_activation(test_case().activation, x[i]);
      // In the left tail the value is x e^-t: the relative error is that of t, about x^2 to x^3 of them.
      result.magnitude[i] = std::abs(result.value[i]) * (1.0 + std::abs(x[i] * x[i] * x[i]) * 0.2);
    }
    return result;
  }
};

TEST_P(ActivationTest, SweepIsAccurateInBothTails) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  std::vector<float> values;
  for (int i = -12000; i <= 12000; ++i) values.push_back(static_cast<float>(i) / 1000.0f);
  const Tensor x = from_floats({1, static_cast<int64_t>(values.size())}, values);
  Reference expected = reference(read(x));
  // Below the smallest normal number results may be flushed to 0.
  for (double& magnitude : expected.magnitude.values) magnitude += 0x1p-126 / epsilon();
  expect_close(read(ops::activation(context(), test_case().activation, x)), expected, 8.0);
}

TEST_P(ActivationTest, LargeArgumentsAndNan) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const float infinity = std::numeric_limits<float>::infinity();
  const Tensor x = from_floats({1, 7}, {-1e30f, -1000.0f, -0.0f, 1000.0f, 1e10f, infinity, std::nanf("")});
  const Array out = read(ops::activation(context(), test_case().activation, x));
  if (test_case().activation != Activation::kNone) {
    EXPECT_EQ(out[0], 0.0);
    EXPECT_EQ(out[1], 0.0);
  }
  EXPECT_EQ(out[2], 0.0);
  EXPECT_EQ(out[3], read(x)[3]);
  EXPECT_EQ(out[4], read(x)[4]);
  EXPECT_EQ(out[5], INFINITY);
  EXPECT_TRUE(std::isnan(out[6]));
}

TEST_P(ActivationTest, StridedRowsInPlaceAndGated) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  for (const int64_t channels : {int64_t{1}, int64_t{13}, int64_t{128}}) {
    const Tensor x = random_view({11, channels}, 2), factor = random_view({11, channels}, 1);
    const Reference expected = reference(read(x));
    const GuardedView out = make_guarded_view(context(), {11, channels}, 3, context().activation_dtype());
    ops::activation_into(context(), test_case().activation, x, out.view);
    expect_close(read(out.view), expected, 8.0);
    expect_untouched(context(), out);

    Reference gated = expected;
    const Array factors = read(factor);
    for (int64_t i = 0; i < 11 * channels; ++i) {
      gated.value[i] *= factors[i];
      gated.magnitude[i] *= std::abs(factors[i]);
    }
    expect_close(read(ops::gated_activation(context(), test_case().activation, x, factor)), gated, 8.0);

    ops::activation_into(context(), test_case().activation, x, x);
    expect_equal(read(x), read(out.view));
  }
}

CHIPMUNK_INSTANTIATE(ActivationTest, ::testing::ValuesIn(kActivations));

class ElementwiseTest : public OpCaseTest<OnlyCase> {};

TEST_P(ElementwiseTest, ClampKeepsNan) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Tensor x = from_floats({1, 6}, {-3.0f, -1.0f, 0.5f, 2.0f, INFINITY, std::nanf("")});
  const Tensor out = context().empty({1, 6});
  ops::clamp_into(context(), x, -1.0f, 1.0f, out);
  const Array got = read(out);
  const double expected[] = {-1.0, -1.0, 0.5, 1.0, 1.0};
  for (int64_t i = 0; i < 5; ++i) EXPECT_EQ(got[i], expected[i]);
  EXPECT_TRUE(std::isnan(got[5]));

  const Tensor rows = random_view({7, 37}, 2);
  const Array before = read(rows);
  ops::clamp_into(context(), rows, -0.5f, 0.75f, rows);
  Array clamped = before;
  for (double& value : clamped.values) value = std::min(std::max(value, -0.5), 0.75);
  expect_equal(read(rows), clamped);
}

TEST_P(ElementwiseTest, AxpbyWithStridesAndRepeats) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const auto check = [&](const Tensor& a, const Tensor& b) {
    Reference expected{read(a), read(a)};
    const Array other = read(b);
    for (int64_t i = 0; i < a.numel(); ++i) {
      const double x = 1.5 * expected.value[i], y = -0.25 * other[i];
      expected.value[i] = x + y;
      expected.magnitude[i] = std::abs(x) + std::abs(y);
    }
    const GuardedView out = make_guarded_view(context(), a.shape(), 1, context().activation_dtype());
    ops::axpby_into(context(), 1.5f, a, -0.25f, b, out.view);
    expect_close(read(out.view), expected, 2.0);
    expect_untouched(context(), out);
  };
  check(random({3, 5, 7}), random({3, 5, 7}));
  check(random_view({3, 5, 70}, 2), random({3, 5, 70}));
  check(random({2, 1100}), random({2, 1100}));
  check(random({3, 5, 7}), random({1, 1, 7}).expand(0, 3).expand(1, 5));
  check(random({3, 5, 7}), random({3, 5, 1}).expand(2, 7));
  check(random({7, 5}).permute({1, 0}), random({5, 7}));
  check(random({20, 1}).expand(1, 30), random({1, 30}).expand(0, 20));
  check(random({1}), random({1}));
  check(random({4, 33}, DType::kBF16), random({33, 4}, DType::kF16).permute({1, 0}));
}

TEST_P(ElementwiseTest, AxpbyInPlace) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Tensor a = random({9, 21}), b = random({9, 21}), out = context().empty({9, 21});
  ops::axpby_into(context(), 0.5f, a, 2.0f, b, out);
  const Array expected = read(out);
  const Tensor a_copy = context().empty({9, 21});
  ops::copy_into(context(), a, a_copy);
  ops::axpby_into(context(), 0.5f, a_copy, 2.0f, b, a_copy);
  expect_equal(read(a_copy), expected);
  ops::axpby_into(context(), 0.5f, a, 2.0f, b, b);
  expect_equal(read(b), expected);
}

TEST_P(ElementwiseTest, EmbeddingOfEachDtype) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3, DType::kF8E5M2}) {
    const Tensor table = random({11, 37}, dtype), indices = from_ints({10, 0, 3, 3, 7});
    const Array rows = read(table), got = read(ops::embedding(context(), indices, table));
    const int64_t expected[] = {10, 0, 3, 3, 7};
    for (int64_t i = 0; i < 5 * 37; ++i) {
      EXPECT_NEAR(got[i], rows[expected[i / 37] * 37 + i % 37], std::abs(got[i]) * 2 * epsilon());
    }
  }
}

TEST_P(ElementwiseTest, TimestepEmbedding) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  for (const int64_t channels : {int64_t{2}, int64_t{6}, int64_t{256}}) {
    const Tensor arguments = from_floats({4}, {0.0f, 1.0f, 500.25f, 3500.0f}, DType::kF32);
    expect_close(read(ops::timestep_embedding(context(), arguments, channels)),
                 reference_timestep_embedding(read(arguments), channels, 10000.0), 4.0);
  }
}

CHIPMUNK_INSTANTIATE(ElementwiseTest, ::testing::Values(OnlyCase{}));

}  // namespace
}  // namespace chipmunk::test
