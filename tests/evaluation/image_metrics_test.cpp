#include "evaluation/image_metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "chipmunk/error.h"

namespace chipmunk {
namespace {

Frames constant(int width, int height, int red, int green, int blue) {
  Frames frames{width, height, 1, 0.0, {}};
  for (int i = 0; i < width * height; ++i) {
    for (const int value : {red, green, blue}) frames.rgb.push_back(static_cast<uint8_t>(value));
  }
  return frames;
}

Frames noise(int width, int height, uint64_t seed, int low = 0, int high = 255) {
  Frames frames = constant(width, height, 0, 0, 0);
  std::mt19937_64 random(seed);
  for (uint8_t& value : frames.rgb) {
    value = static_cast<uint8_t>(low + static_cast<int>(random() % static_cast<uint64_t>(high - low + 1)));
  }
  return frames;
}

/// Mostly `a`, so that the similarity is neither 0 nor 1.
Frames blend(const Frames& a, const Frames& b) {
  Frames mixed = a;
  for (size_t i = 0; i < a.rgb.size(); ++i) mixed.rgb[i] = static_cast<uint8_t>((3 * a.rgb[i] + b.rgb[i]) / 4);
  return mixed;
}

double luma_at(const Frames& frames, int x, int y) {
  const size_t at = 3 * (static_cast<size_t>(y) * static_cast<size_t>(frames.width) + static_cast<size_t>(x));
  return 0.299 * frames.rgb[at] + 0.587 * frames.rgb[at + 1] + 0.114 * frames.rgb[at + 2];
}

/// The definition, window by window, with variances about the mean.
double naive_ssim(const Frames& a, const Frames& b) {
  double weights[11][11], weight_sum = 0.0;
  for (int v = 0; v < 11; ++v) {
    for (int u = 0; u < 11; ++u) {
      weights[v][u] = std::exp(-((u - 5) * (u - 5) + (v - 5) * (v - 5)) / 4.5);
      weight_sum += weights[v][u];
    }
  }
  double total = 0.0;
  int positions = 0;
  for (int y = 0; y + 11 <= a.height; ++y) {
    for (int x = 0; x + 11 <= a.width; ++x) {
      const auto weighted = [&](auto value) {
        double sum = 0.0;
        for (int v = 0; v < 11; ++v) {
          for (int u = 0; u < 11; ++u) sum += weights[v][u] * value(x + u, y + v);
        }
        return sum / weight_sum;
      };
      const double ma = weighted([&](int u, int v) { return luma_at(a, u, v); });
      const double mb = weighted([&](int u, int v) { return luma_at(b, u, v); });
      const auto moment = [&](const Frames& p, double mp, const Frames& q, double mq) {
        return weighted([&](int u, int v) { return (luma_at(p, u, v) - mp) * (luma_at(q, u, v) - mq); });
      };
      total += (2 * ma * mb + 6.5025) * (2 * moment(a, ma, b, mb) + 58.5225) /
               ((ma * ma + mb * mb + 6.5025) * (moment(a, ma, a, ma) + moment(b, mb, b, mb) + 58.5225));
      ++positions;
    }
  }
  return total / positions;
}

ErrorCode code_of(double (*metric)(const Frames&, const Frames&), const Frames& a, const Frames& b) {
  try {
    metric(a, b);
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "nothing was thrown";
  return ErrorCode::kInternal;
}

TEST(Psnr, EqualPicturesAreInfinitelyAlike) {
  const Frames picture = noise(5, 3, 1);
  EXPECT_EQ(psnr(picture, picture), INFINITY);
}

TEST(Psnr, KnownDifferences) {
  // Everything 1 apart: 20 log10(255). Black and white: 0 dB.
  EXPECT_NEAR(psnr(constant(4, 4, 10, 20, 30), constant(4, 4, 11, 19, 31)), 48.1308036, 1e-7);
  EXPECT_NEAR(psnr(constant(1, 1, 0, 0, 0), constant(1, 1, 255, 255, 255)), 0.0, 1e-12);
  // One value of 12 is 6 apart: MSE 3.
  Frames changed = constant(2, 2, 100, 100, 100);
  changed.rgb[7] = 94;
  EXPECT_NEAR(psnr(constant(2, 2, 100, 100, 100), changed), 43.3595911, 1e-7);
}

TEST(Psnr, AShiftByAConstantCountsOnlyTheConstant) {
  const Frames picture = noise(16, 9, 2, 0, 245);
  Frames shifted = picture;
  for (uint8_t& value : shifted.rgb) value = static_cast<uint8_t>(value + 10);
  EXPECT_NEAR(psnr(picture, shifted), 20.0 * std::log10(25.5), 1e-9);
  EXPECT_EQ(psnr(picture, shifted), psnr(shifted, picture));
}

TEST(Ssim, APictureIsLikeItself) {
  const Frames picture = noise(24, 13, 3);
  EXPECT_NEAR(ssim(picture, picture), 1.0, 1e-12);
}

TEST(Ssim, ConstantPicturesDifferInLuminanceAlone) {
  // (2 * 100 * 150 + C1) / (100^2 + 150^2 + C1)
  EXPECT_NEAR(ssim(constant(11, 11, 100, 100, 100), constant(11, 11, 150, 150, 150)), 30006.5025 / 32506.5025, 1e-12);
  // Luma 0.299 * 255 = 76.245 against 0: 6.5025 / (76.245^2 + 6.5025).
  EXPECT_NEAR(ssim(constant(20, 12, 255, 0, 0), constant(20, 12, 0, 0, 0)), 6.5025 / (76.245 * 76.245 + 6.5025), 1e-9);
}

TEST(Ssim, AgreesWithTheDefinition) {
  const Frames a = noise(17, 14, 4), b = noise(17, 14, 5);
  EXPECT_NEAR(ssim(a, b), naive_ssim(a, b), 1e-9);
  const Frames mixed = blend(a, b);
  const double value = ssim(a, mixed);
  EXPECT_NEAR(value, naive_ssim(a, mixed), 1e-9);
  EXPECT_GT(value, 0.5);
  EXPECT_LT(value, 0.99);
  EXPECT_NEAR(ssim(mixed, a), value, 1e-12);
}

TEST(Ssim, AShiftByAConstantChangesLuminanceAlone) {
  const Frames picture = noise(12, 12, 6, 100, 200);
  Frames shifted = picture;
  for (uint8_t& value : shifted.rgb) value = static_cast<uint8_t>(value + 20);
  const double value = ssim(picture, shifted);
  EXPECT_NEAR(value, naive_ssim(picture, shifted), 1e-9);
  // The luminance term of means near 150 and 170; structure and contrast are the same.
  EXPECT_NEAR(value, (2 * 150.0 * 170.0) / (150.0 * 150.0 + 170.0 * 170.0), 2e-3);
}

TEST(Ssim, FramesAreAveraged) {
  const Frames a = noise(11, 11, 7), b = noise(11, 11, 8);
  Frames first = a, second = a;
  first.count = second.count = 2;
  first.rgb.insert(first.rgb.end(), a.rgb.begin(), a.rgb.end());
  second.rgb.insert(second.rgb.end(), b.rgb.begin(), b.rgb.end());
  EXPECT_NEAR(ssim(first, second), (1.0 + ssim(a, b)) / 2.0, 1e-12);
}

TEST(ImageMetrics, RefuseWhatCannotBeCompared) {
  const Frames picture = constant(12, 11, 1, 2, 3);
  Frames torn = picture;
  torn.rgb.pop_back();
  for (const auto metric : {psnr, ssim}) {
    EXPECT_EQ(code_of(metric, picture, constant(11, 12, 1, 2, 3)), ErrorCode::kShapeMismatch);
    EXPECT_EQ(code_of(metric, picture, torn), ErrorCode::kShapeMismatch);
    EXPECT_EQ(code_of(metric, torn, torn), ErrorCode::kShapeMismatch);
    EXPECT_EQ(code_of(metric, Frames{}, Frames{}), ErrorCode::kShapeMismatch);
  }
  EXPECT_EQ(code_of(ssim, constant(10, 40, 1, 2, 3), constant(10, 40, 1, 2, 3)), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of(ssim, constant(40, 10, 1, 2, 3), constant(40, 10, 1, 2, 3)), ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace chipmunk
