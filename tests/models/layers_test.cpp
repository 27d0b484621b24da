#include "models/layers.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "models/device_weights.h"
#include "support/contexts.h"
#include "support/simulated_device.h"

namespace chipmunk {
namespace {

/// A host tensor whose elements count up from `first`.
Tensor counting(const Dims& shape, float first) {
  const Tensor tensor = make_host_tensor(shape, DType::kF32);
  for (int64_t i = 0; i < tensor.numel(); ++i) tensor.data_as<float>()[i] = first + static_cast<float>(i);
  return tensor;
}

/// Parts of 4, 4 and 4 of 12 outputs.
ConcatLinear slices_of(const Tensor& weight, const Tensor& bias) {
  ConcatLinear layer;
  for (int64_t begin = 0; begin < 12; begin += 4) {
    layer.parts.push_back(
        {weight.slice(0, begin, begin + 4), bias.empty() ? Tensor{} : bias.slice(0, begin, begin + 4)});
  }
  return layer;
}

TEST(JoinAdjacent, JoinsWhatLiesSideBySide) {
  const Tensor weight = counting({12, 5}, 0.0f), bias = counting({12}, 100.0f);
  const std::vector<Linear> joined = join_adjacent(slices_of(weight, bias));
  ASSERT_EQ(joined.size(), 1u);
  EXPECT_EQ(joined[0].weight.shape(), weight.shape());
  EXPECT_EQ(joined[0].weight.data(), weight.data());
  EXPECT_EQ(joined[0].bias.shape(), bias.shape());
  EXPECT_EQ(joined[0].bias.data(), bias.data());

  const std::vector<Linear> without_bias = join_adjacent(slices_of(weight, {}));
  ASSERT_EQ(without_bias.size(), 1u);
  EXPECT_TRUE(without_bias[0].bias.empty());
}

TEST(JoinAdjacent, LeavesApartWhatDoesNot) {
  const Tensor weight = counting({12, 5}, 0.0f), bias = counting({12}, 100.0f);
  ConcatLinear swapped = slices_of(weight, bias);
  std::swap(swapped.parts[1], swapped.parts[2]);
  EXPECT_EQ(join_adjacent(swapped).size(), 3u);

  ConcatLinear other_bias = slices_of(weight, bias);
  other_bias.parts[1].bias = counting({4}, 7.0f);
  EXPECT_EQ(join_adjacent(other_bias).size(), 3u);

  ConcatLinear one_without = slices_of(weight, bias);
  one_without.parts[2].bias = {};
  ASSERT_EQ(join_adjacent(one_without).size(), 2u);
  EXPECT_EQ(join_adjacent(one_without)[0].out_features(), 8);

  // Columns of a wider matrix.
  EXPECT_EQ(join_adjacent(slices_of(counting({12, 6}, 0.0f).slice(1, 0, 5), bias)).size(), 3u);
  EXPECT_TRUE(join_adjacent({}).empty());
}

TEST(JoinAdjacent, GivesTheSameOutput) {
  const Context context = test::cpu_context();
  const Tensor weight = counting({12, 5}, -3.0f), bias = counting({12}, 0.5f);
  ConcatLinear apart = slices_of(weight, bias);
  for (Linear& part : apart.parts) {
    part.weight = counting(part.weight.shape(), *part.weight.data_as<float>());  // the same values elsewhere
  }
  ASSERT_EQ(join_adjacent(apart).size(), 3u);
  const Tensor x = counting({1, 3, 5}, 0.25f), together = make_host_tensor({1, 3, 12}, DType::kF32),
               separate = make_host_tensor({1, 3, 12}, DType::kF32);
  concat_linear_into(context, x, slices_of(weight, bias), together);
  concat_linear_into(context, x, apart, separate);
  for (int64_t i = 0; i < together.numel(); ++i) {
    EXPECT_FLOAT_EQ(together.data_as<float>()[i], separate.data_as<float>()[i]) << i;
  }
}

TEST(JoinAdjacent, PartsLieSideBySideOnceTheyAreOnADevice) {
  const test::SimulatedDevice device;
  ClipTextModel model;
  ClipTextLayer layer;
  const auto part = [] { return Linear{counting({64, 64}, 0.0f), counting({64}, 1.0f)}; };
  layer.qkv = {{part(), part(), part()}};
  model.layers.push_back(layer);
  upload_weights(device.context(), weight_groups(model), {});
  const std::vector<Linear> joined = join_adjacent(model.layers[0].qkv);
  ASSERT_EQ(joined.size(), 1u);
  EXPECT_EQ(joined[0].weight.shape(), (Dims{192, 64}));
}

}  // namespace
}  // namespace chipmunk
