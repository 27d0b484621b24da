#include "ops/norm.h"

#include <cmath>
#include <limits>

#include "ops/elementwise.h"
#include "support/op_test.h"

namespace chipmunk::test {
namespace {

struct NormCase : NamedCase {
  int64_t batch, rows, channels;
  bool affine = false, modulated = false;
  int64_t pad = 0;
  float offset = 0.0f;  // added to every value: a mean far from 0 exposes one-pass variances
};

const NormCase kCases[] = {
    {"plain", 1, 30, 64},
    {"affine", 1, 7, 100, true},
    {"modulated", 2, 9, 96, false, true},
    {"everything", 3, 11, 77, true, true, 3},
    {"one_channel", 1, 5, 1, true},
    {"primes", 2, 13, 131, true, true},
    {"wide", 1, 3, 3072, false, true},
    {"wider", 2, 3, 5000, true, true},
    {"wider_strided", 1, 2, 4099, false, true, 8},
    {"strided", 2, 5, 33, true, false, 4},
    {"far_from_zero", 1, 8, 512, true, false, 0, 1000.0f},
};

class LayerNormTest : public OpCaseTest<NormCase> {};

TEST_P(LayerNormTest, MatchesReferenceAlsoInPlace) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const NormCase& c = test_case();
  Tensor x = random_view({c.batch, c.rows, c.channels}, c.pad);
  if (c.offset != 0.0f) {
    const Array values = read(x);
    std::vector<float> shifted;
    for (const double value : values.values) shifted.push_back(static_cast<float>(value) + c.offset);
    x = from_floats(x.shape(), shifted);
  }
  ops::NormAffine affine;
  if (c.affine) affine = {random({c.channels}, DType::kBF16), random({c.channels}, DType::kBF16)};
  ops::Modulation modulation;
  if (c.modulated) {
    // Views with one stride, as chunks of a projection are.
    const Tensor both = random({c.batch, 2 * c.channels});
    modulation = {both.slice(1, 0, c.channels), both.slice(1, c.channels, 2 * c.channels)};
  }
  const Reference expected = reference_layer_norm(read(x), read(affine.weight), read(affine.bias),
                                                  read(modulation.scale), read(modulation.shift), 1e-6f);
  const GuardedView out = make_guarded_view(context(), x.shape(), 2, context().activation_dtype());
  ops::layer_norm_into(context(), x, out.view, 1e-6f, affine, modulation);
  expect_close(read(out.view), expected, 8.0);
  expect_untouched(context(), out);
  const Array first = read(out.view);
  ops::layer_norm_into(context(), x, out.view, 1e-6f, affine, modulation);
  expect_equal(read(out.view), first);
  ops::layer_norm_into(context(), x, x, 1e-6f, affine, modulation);
  expect_equal(read(x), first);
}

CHIPMUNK_INSTANTIATE(LayerNormTest, ::testing::ValuesIn(kCases));

class UpdatedLayerNormTest : public OpCaseTest<NormCase> {};

TEST_P(UpdatedLayerNormTest, GivesTheBitsOfTheTwoOps) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const NormCase& c = test_case();
  const DType dtype = context().activation_dtype();
  const Tensor value = random_view({c.batch, c.rows, c.channels}, c.pad), gate = random({c.batch, 2 * c.channels});
  const ops::GatedUpdate update{value, gate.slice(1, c.channels, 2 * c.channels)};
  ops::Modulation modulation;
  if (c.modulated) modulation = {random({c.batch, c.channels}), random({c.batch, c.channels})};
  const GuardedView x = make_guarded_view(context(), value.shape(), 3, dtype);
  const GuardedView out = make_guarded_view(context(), value.shape(), 2, dtype);
  const Tensor before = random(value.shape());
  ops::copy_into(context(), before, x.view);
  ops::layer_norm_into(context(), x.view, out.view, 1e-6f, {}, modulation, update);
  expect_untouched(context(), x);
  expect_untouched(context(), out);

  const Tensor sum = context().empty(value.shape()), normed = context().empty(value.shape());
  ops::gated_add_into(context(), value, update.gate, before, sum);
  ops::layer_norm_into(context(), sum, normed, 1e-6f, {}, modulation);
  expect_equal(read(x.view), read(sum));
  expect_equal(read(out.view), read(normed));
}

CHIPMUNK_INSTANTIATE(UpdatedLayerNormTest, ::testing::ValuesIn(kCases));

class LayerNormPairTest : public OpCaseTest<NormCase> {
 protected:
  struct Memory {
    GuardedView x, out;
  };
  Memory make_memory(const Dims& shape, const Tensor& values) {
    const DType dtype = context().activation_dtype();
    Memory memory{make_guarded_view(context(), shape, 3, dtype), make_guarded_view(context(), shape, 2, dtype)};
    ops::copy_into(context(), values, memory.x.view);
    return memory;
  }
};

TEST_P(LayerNormPairTest, IsAsOneAfterTheOther) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const NormCase& c = test_case();
  // Whether the first has an update, and the second.
  for (const auto& [first_updates, second_updates] : {std::pair{true, true}, {false, false}, {true, false}}) {
    ops::LayerNormCall together[2], alone[2];
    std::vector<Memory> memories;
    for (int i = 0; i < 2; ++i) {
      const Dims shape{c.batch, i == 0 ? c.rows : c.rows / 3 + 1, c.channels};
      const Tensor values = random(shape), value = random_view(shape, c.pad), gate = random({c.batch, c.channels});
      ops::Modulation modulation;
      if (c.modulated) modulation = {random({c.batch, c.channels}), random({c.batch, c.channels})};
      ops::GatedUpdate update;
      if (i == 0 ? first_updates : second_updates) update = {value, gate};
      for (ops::LayerNormCall* call : {&together[i], &alone[i]}) {
        memories.push_back(make_memory(shape, values));
        *call = {memories.back().x.view, memories.back().out.view, 1e-6f, {}, modulation, update};
      }
    }
    ops::layer_norm_pair_into(context(), together[0], together[1]);
    for (int i = 0; i < 2; ++i) {
      const ops::LayerNormCall& call = alone[i];
      ops::layer_norm_into(context(), call.x, call.out, call.epsilon, call.affine, call.modulation, call.update);
      expect_equal(read(together[i].x), read(call.x));
      expect_equal(read(together[i].out), read(call.out));
    }
    for (const Memory& memory : memories) {
      expect_untouched(context(), memory.x);
      expect_untouched(context(), memory.out);
    }
  }
}

CHIPMUNK_INSTANTIATE(LayerNormPairTest, ::testing::ValuesIn(kCases));

class RmsNormTest : public OpCaseTest<NormCase> {};

TEST_P(RmsNormTest, MatchesReference) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const NormCase& c = test_case();
  const int64_t rows = c.batch * c.rows;
  const Tensor x = random_view({rows, c.channels}, c.pad), weight = random({c.channels}, DType::kBF16);
  const Array first = read(ops::rms_norm(context(), x, weight, 1e-6f));
  expect_close(first, reference_rms_norm(read(x), read(weight), 1e-6f), 8.0);
  expect_equal(read(ops::rms_norm(context(), x, weight, 1e-6f)), first);
}

CHIPMUNK_INSTANTIATE(RmsNormTest, ::testing::ValuesIn(kCases));

struct GroupNormCase : NamedCase {
  int64_t batch, height, width, channels, groups;
  Activation activation = Activation::kNone;
};

class GroupNormTest : public OpCaseTest<GroupNormCase> {};

TEST_P(GroupNormTest, MatchesReference) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const GroupNormCase& c = test_case();
  const Tensor x = random({c.batch, c.height, c.width, c.channels}, 3.0f);
  const ops::NormAffine affine{random({c.channels}, DType::kBF16), random({c.channels})};
  const auto run = [&] { return read(ops::group_norm(context(), x, affine, c.groups, 1e-6f, c.activation)); };
  const Array first = run();
  expect_close(
      first, reference_group_norm(read(x), read(affine.weight), read(affine.bias), c.groups, 1e-6f, c.activation), 8.0);
  expect_equal(run(), first);
}

CHIPMUNK_INSTANTIATE(GroupNormTest,
                     ::testing::Values(GroupNormCase{"plain", 1, 8, 8, 64, 32},
                                       GroupNormCase{"silu", 2, 5, 7, 32, 4, Activation::kSilu},
                                       GroupNormCase{"one_group", 1, 3, 3, 5, 1},
                                       GroupNormCase{"one_pixel", 2, 1, 1, 12, 3, Activation::kSilu},
                                       GroupNormCase{"primes", 1, 13, 11, 21, 7},
                                       GroupNormCase{"many_pixels", 1, 37, 41, 16, 4, Activation::kSilu}));

class NormNanTest : public OpCaseTest<OnlyCase> {};

TEST_P(NormNanTest, NanStaysInItsRowOrGroup) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  std::vector<float> values(8 * 20);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 7);
  values[3 * 20 + 1] = std::numeric_limits<float>::quiet_NaN();
  const Tensor x = from_floats({8, 20}, values), weight = random({20});
  const Array layer = read(ops::layer_norm(context(), x, 1e-6f));
  const Array rms = read(ops::rms_norm(context(), x, weight, 1e-6f));
  for (int64_t i = 0; i < 160; ++i) {
    EXPECT_EQ(std::isnan(layer[i]), i / 20 == 3) << i;
    EXPECT_EQ(std::isnan(rms[i]), i / 20 == 3) << i;
  }
  const Array group = read(ops::group_norm(context(), x.reshape({1, 2, 4, 20}), {weight, random({20})}, 4, 1e-6f));
  for (int64_t i = 0; i < 160; ++i) EXPECT_EQ(std::isnan(group[i]), i % 20 < 5) << i;
}

CHIPMUNK_INSTANTIATE(NormNanTest, ::testing::Values(OnlyCase{}));

}  // namespace
}  // namespace chipmunk::test
