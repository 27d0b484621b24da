#include "models/hidden_states.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "ops/elementwise.h"
#include "support/contexts.h"

namespace chipmunk {
namespace {

constexpr float kEpsilon = 1e-6f;
constexpr int64_t kRows = 6, kText = 2, kChannels = 8;

/// Values that differ from element to element, and from seed to seed.
Tensor values(const Dims& shape, float seed) {
  const Tensor tensor = make_host_tensor(shape, DType::kF32);
  for (int64_t i = 0; i < tensor.numel(); ++i) tensor.data_as<float>()[i] = std::sin(seed + static_cast<float>(i));
  return tensor;
}

class HiddenStatesTest : public ::testing::Test {
 protected:
  static Tensor text(const Tensor& joint) { return joint.slice(1, 0, kText); }
  static Tensor image(const Tensor& joint) { return joint.slice(1, kText, kRows); }
  static void expect_same(const Tensor& a, const Tensor& b) {
    ASSERT_EQ(a.shape(), b.shape());
    EXPECT_EQ(std::memcmp(a.data(), b.data(), a.bytes()), 0);
  }

  const Context context_ = test::cpu_context();
  const Tensor joint_ = values({1, kRows, kChannels}, 1.0f);
  const Tensor expected_ = values({1, kRows, kChannels}, 1.0f);
  const Tensor update_ = values({1, kRows, kChannels}, 2.0f);
  const Tensor gate_ = values({1, kChannels}, 3.0f);
  const ops::Modulation modulation_{values({1, kChannels}, 4.0f), values({1, kChannels}, 5.0f)};
  const Tensor out_ = values({1, kRows, kChannels}, 6.0f);
  HiddenStates states_{context_, joint_, kEpsilon};
};

TEST_F(HiddenStatesTest, TheNextNormOfTheSameRowsAdds) {
  states_.add(joint_, update_, gate_);
  expect_same(joint_, expected_);
  states_.norm_into({joint_, modulation_, out_});
  ops::gated_add_into(context_, update_, gate_, expected_, expected_);
  expect_same(joint_, expected_);
  expect_same(out_, ops::layer_norm(context_, expected_, kEpsilon, {}, modulation_));
  // Only once.
  states_.norm_into({joint_, modulation_, out_});
  states_.settle();
  expect_same(joint_, expected_);
}

TEST_F(HiddenStatesTest, TwoNormsAddWhatIsOfTheirRows) {
  states_.add(image(joint_), image(update_), gate_);
  states_.norm_into({text(joint_), modulation_, text(out_)}, {image(joint_), modulation_, image(out_)});
  ops::gated_add_into(context_, image(update_), gate_, image(expected_), image(expected_));
  expect_same(joint_, expected_);
  expect_same(out_, ops::layer_norm(context_, expected_, kEpsilon, {}, modulation_));
}

TEST_F(HiddenStatesTest, NormsOfOtherRowsFindItAdded) {
  states_.add(image(joint_), image(update_), gate_);
  states_.norm_into({joint_, modulation_, out_});
  ops::gated_add_into(context_, image(update_), gate_, image(expected_), image(expected_));
  expect_same(joint_, expected_);
  expect_same(out_, ops::layer_norm(context_, expected_, kEpsilon, {}, modulation_));
}

TEST_F(HiddenStatesTest, UpdatesOfOtherRowsWaitForTheirOwnNorm) {
  states_.add(text(joint_), text(update_), gate_);
  states_.add(image(joint_), image(update_), gate_);
  expect_same(joint_, expected_);
  states_.norm_into({image(joint_), modulation_, image(out_)});
  ops::gated_add_into(context_, image(update_), gate_, image(expected_), image(expected_));
  expect_same(joint_, expected_);
  states_.norm_into({text(joint_), modulation_, text(out_)});
  ops::gated_add_into(context_, text(update_), gate_, text(expected_), text(expected_));
  expect_same(joint_, expected_);
  expect_same(out_, ops::layer_norm(context_, expected_, kEpsilon, {}, modulation_));
}

TEST_F(HiddenStatesTest, ANormOfAllRowsFindsBothAdded) {
  states_.add(text(joint_), text(update_), gate_);
  states_.add(image(joint_), image(update_), gate_);
  states_.norm_into({joint_, modulation_, out_});
  ops::gated_add_into(context_, update_, gate_, expected_, expected_);
  expect_same(joint_, expected_);
  expect_same(out_, ops::layer_norm(context_, expected_, kEpsilon, {}, modulation_));
}

TEST_F(HiddenStatesTest, ASecondUpdateOfSomeOfTheRowsSettlesTheFirst) {
  states_.add(joint_, update_, gate_);
  states_.add(text(joint_), text(update_), gate_);
  ops::gated_add_into(context_, update_, gate_, expected_, expected_);
  expect_same(joint_, expected_);
  states_.settle();
  ops::gated_add_into(context_, text(update_), gate_, text(expected_), text(expected_));
  expect_same(joint_, expected_);
}

}  // namespace
}  // namespace chipmunk
