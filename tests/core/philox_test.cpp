#include "core/philox.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace chipmunk {
namespace {

// The known-answer vectors that the generator's authors publish with Random123.
TEST(Philox, KnownAnswers) {
  constexpr uint32_t kOnes = 0xffffffffu;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (PhiloxCounter{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  EXPECT_EQ(philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (PhiloxCounter{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
  EXPECT_EQ(philox4x32({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}),
            (PhiloxCounter{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}));
}

TEST(PhiloxNormals, AnElementDependsOnSeedAndIndexAlone) {
  std::vector<float> few(7), many(1000);
  philox_normals(42, few);
  philox_normals(42, many);
  for (size_t i = 0; i < few.size(); ++i) EXPECT_EQ(few[i], many[i]);
  std::vector<float> other(7);
  philox_normals(43, other);
  EXPECT_NE(few, other);
  philox_normals(42 + (uint64_t{1} << 32), other);
  EXPECT_NE(few, other);
}

// A seed's picture must not change between versions or devices.
TEST(PhiloxNormals, ValuesArePinned) {
  const auto expect_first = [](uint64_t seed, const std::vector<float>& expected) {
    std::vector<float> values(expected.size());
    philox_normals(seed, values);
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(values[i], expected[i], 1e-7f) << seed << " " << i;
  };
  expect_first(0, {-0.121517979f, -1.35003269f, -0.0818742067f, -0.22270906f, 1.77642429f, 2.1735208f});
  expect_first(42, {0.886497498f, 0.439356059f, -0.156609625f, -0.0137186786f, -0.494100511f, -0.372166872f});
}

TEST(PhiloxNormals, AreStandardNormal) {
  std::vector<float> values(1 << 20);
  philox_normals(7, values);
  double sum = 0, squares = 0, cubes = 0, fourths = 0;
  for (float value : values) {
    const double x = static_cast<double>(value);
    sum += x;
    squares += x * x;
    cubes += x * x * x;
    fourths += x * x * x * x;
  }
  const double n = static_cast<double>(values.size());
  // Five standard errors of each moment.
  EXPECT_NEAR(sum / n, 0.0, 5.0 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1.0, 5.0 * std::sqrt(2.0 / n));
  EXPECT_NEAR(cubes / n, 0.0, 5.0 * std::sqrt(15.0 / n));
  EXPECT_NEAR(fourths / n, 3.0, 5.0 * std::sqrt(96.0 / n));
}

}  // namespace
}  // namespace chipmunk
