#include <cmath>
#include <cstring>

#include "core/float_formats.h"
#include "ops/elementwise.h"
#include "support/op_test.h"

namespace chipmunk::test {
namespace {

class CopyTest : public OpCaseTest<OnlyCase> {
 protected:
  void check(const Tensor& x, const GuardedView& out) {
    ops::copy_into(context(), x, out.view);
    expect_equal(read(out.view), read(x));
    expect_untouched(context(), out);
  }
};

TEST_P(CopyTest, BetweenAnyStrides) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const DType dtype = context().activation_dtype();
  const auto guarded = [&](const Dims& shape) { return make_guarded_view(context(), shape, 1, dtype); };
  check(random({5, 7}), guarded({5, 7}));
  check(random_view({5, 1700}, 2), guarded({5, 1700}));
  check(random({1}), guarded({1}));
  check(random({33, 65}).permute({1, 0}), guarded({65, 33}));
  // Images between channels first and last.
  check(random({2, 3, 17, 19}).permute({0, 2, 3, 1}), guarded({2, 17, 19, 3}));
  check(random({2, 17, 19, 35}).permute({0, 3, 1, 2}), guarded({2, 35, 17, 19}));
  // Patches of 2 x 2 pixels into tokens and back.
  check(random({1, 4, 6, 10}).reshape({1, 4, 3, 2, 5, 2}).permute({0, 2, 4, 1, 3, 5}), guarded({1, 3, 5, 4, 2, 2}));
  check(random({7, 1}).expand(1, 40), guarded({7, 40}));
  check(random({1, 40}).expand(0, 7), guarded({7, 40}));
  check(random({2, 2, 3, 2, 3, 2, 2, 3}).permute({7, 2, 5, 0, 1, 6, 3, 4}), guarded({3, 3, 2, 2, 2, 2, 2, 3}));
  const GuardedView turned = make_guarded_view(context(), {21, 34}, 2, dtype);
  ops::copy_into(context(), random({34, 21}), turned.view.permute({1, 0}));
  expect_untouched(context(), turned);
}

TEST_P(CopyTest, LargeDense) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Tensor x = random({1, 200003}), out = context().empty({1, 200003});
  ops::copy_into(context(), x, out);
  expect_equal(read(out), read(x));
}

TEST_P(CopyTest, EveryBitPatternUpcastsExactly) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF8E4M3, DType::kF8E5M2}) {
    const int64_t count = size_of(dtype) == 2 ? 65536 : 256;
    const Tensor host = make_host_tensor({count}, dtype);
    for (int64_t i = 0; i < count; ++i) {
      if (size_of(dtype) == 2) {
        host.data_as<uint16_t>()[i] = static_cast<uint16_t>(i);
      } else {
        host.data_as<uint8_t>()[i] = static_cast<uint8_t>(i);
      }
    }
    const Tensor x = context().to_device(host);
    const Array expected = to_array(host);
    expect_equal(read(ops::to_dense(context(), x, DType::kF32)), expected);
    const Tensor strided = context().empty({count, 2}, DType::kF32);
    ops::copy_into(context(), x, strided.select(1, 0));
    expect_equal(read(strided.select(1, 0)), expected);
  }
}

TEST_P(CopyTest, DowncastsRoundToNearestEven) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  std::vector<float> values = {0.0f,  -0.0f,  1.0f,    1.00390625f, 1.01171875f, 65519.0f,     65520.0f,
                               1e-8f, -3e-5f, 3.4e38f, INFINITY,    -INFINITY,   std::nanf("")};
  // A NaN with its payload in the low bits.
  values.push_back(std::bit_cast<float>(0x7f800001u));
  for (uint32_t i = 0; i < 5000; ++i) values.push_back(std::bit_cast<float>(i * 858993u));
  const auto count = static_cast<int64_t>(values.size());
  const Tensor x = from_floats({count}, values, DType::kF32);
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    Array expected(Dims{count});
    for (int64_t i = 0; i < count; ++i) {
      const float value = values[static_cast<size_t>(i)];
      expected[i] = dtype == DType::kBF16 ? bf16_to_float(float_to_bf16(value)) : f16_to_float(float_to_f16(value));
    }
    expect_equal(read(ops::to_dense(context(), x, dtype)), expected);
  }
}

TEST_P(CopyTest, CastsBetweenNarrowTypesAndTransposes) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Tensor x = random({40, 30}, DType::kF8E4M3);
  const Tensor out = context().empty({30, 40}, DType::kBF16);
  ops::copy_into(context(), x.permute({1, 0}), out);
  expect_equal(read(out), read(x.permute({1, 0})));
  expect_equal(read(ops::to_dense(context(), x, DType::kF16)), read(x));
}

TEST_P(CopyTest, OtherTypesKeepTheirBits) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  for (const DType dtype : {DType::kI32, DType::kI64, DType::kU8, DType::kBool}) {
    const Tensor host = make_host_tensor({6, 35}, dtype);
    for (size_t i = 0; i < host.bytes(); ++i) static_cast<uint8_t*>(host.data())[i] = static_cast<uint8_t>(i % 100);
    const Tensor x = context().to_device(host), out = context().empty({35, 6}, dtype);
    ops::copy_into(context(), x.permute({1, 0}), out);
    const Tensor got = context().to_host(out);
    const size_t element = size_of(dtype);
    for (size_t i = 0; i < 6; ++i) {
      for (size_t j = 0; j < 35; ++j) {
        EXPECT_EQ(std::memcmp(static_cast<char*>(got.data()) + (j * 6 + i) * element,
                              static_cast<char*>(host.data()) + (i * 35 + j) * element, element),
                  0);
      }
    }
  }
}

CHIPMUNK_INSTANTIATE(CopyTest, ::testing::Values(OnlyCase{}));

}  // namespace
}  // namespace chipmunk::test
