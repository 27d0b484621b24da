#include "evaluation/image_metrics.h"

#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "chipmunk/error.h"

namespace chipmunk {
namespace {

constexpr int kWindow = 11;
constexpr double kSigma = 1.5;
constexpr double kPeak = 255.0;
constexpr double kC1 = (0.01 * kPeak) * (0.01 * kPeak), kC2 = (0.03 * kPeak) * (0.03 * kPeak);

using Plane = std::vector<double>;

std::string size_text(const Frames& frames) {
  return std::to_string(frames.count) + " x " + std::to_string(frames.width) + "x" + std::to_string(frames.height) +
         " with " + std::to_string(frames.rgb.size()) + " values";
}

void check_same_size(const Frames& a, const Frames& b) {
  const size_t expected =
      static_cast<size_t>(a.width) * static_cast<size_t>(a.height) * static_cast<size_t>(a.count) * 3;
  const bool same = a.width == b.width && a.height == b.height && a.count == b.count && a.rgb.size() == b.rgb.size();
  if (same && a.width > 0 && a.height > 0 && a.count > 0 && a.rgb.size() == expected) return;
  throw Error(ErrorCode::kShapeMismatch,
              "expected two pictures of the same size, found " + size_text(a) + " and " + size_text(b),
              "image metrics");
}

/// The window is the product of these along both axes.
std::array<double, kWindow> window_weights() {
  std::array<double, kWindow> weights{};
  double sum = 0.0;
  for (int i = 0; i < kWindow; ++i) {
    const double distance = i - kWindow / 2;
    weights[static_cast<size_t>(i)] = std::exp(-distance * distance / (2.0 * kSigma * kSigma));
    sum += weights[static_cast<size_t>(i)];
  }
  for (double& weight : weights) weight /= sum;
  return weights;
}

Plane luma(const Frames& frames, int frame) {
  const size_t pixels = static_cast<size_t>(frames.width) * static_cast<size_t>(frames.height);
  const uint8_t* rgb = frames.rgb.data() + static_cast<size_t>(frame) * pixels * 3;
  Plane plane(pixels);
  for (size_t i = 0; i < pixels; ++i) {
    plane[i] = 0.299 * rgb[3 * i] + 0.587 * rgb[3 * i + 1] + 0.114 * rgb[3 * i + 2];
  }
  return plane;
}

Plane product(const Plane& a, const Plane& b) {
  Plane result(a.size());
  for (size_t i = 0; i < a.size(); ++i) result[i] = a[i] * b[i];
  return result;
}

/// The weighted means at all positions inside: [height - 10, width - 10].
Plane window_means(const Plane& plane, size_t width, size_t height) {
  static const std::array<double, kWindow> kWeights = window_weights();
  const size_t inner_width = width - kWindow + 1, inner_height = height - kWindow + 1;
  Plane rows(height * inner_width, 0.0), means(inner_height * inner_width, 0.0);
  for (size_t y = 0; y < height; ++y) {
    for (size_t k = 0; k < kWindow; ++k) {
      for (size_t x = 0; x < inner_width; ++x) rows[y * inner_width + x] += kWeights[k] * plane[y * width + x + k];
    }
  }
  for (size_t y = 0; y < inner_height; ++y) {
    for (size_t k = 0; k < kWindow; ++k) {
      for (size_t x = 0; x < inner_width; ++x) {
        means[y * inner_width + x] += kWeights[k] * rows[(y + k) * inner_width + x];
      }
    }
  }
  return means;
}

double ssim_of_planes(const Plane& a, const Plane& b, size_t width, size_t height) {
  const Plane mean_a = window_means(a, width, height), mean_b = window_means(b, width, height);
  const Plane square_a = window_means(product(a, a), width, height);
  const Plane square_b = window_means(product(b, b), width, height);
  const Plane mixed = window_means(product(a, b), width, height);
  double sum = 0.0;
  for (size_t i = 0; i < mean_a.size(); ++i) {
    const double ma = mean_a[i], mb = mean_b[i];
    const double variances = (square_a[i] - ma * ma) + (square_b[i] - mb * mb);
    const double covariance = mixed[i] - ma * mb;
    sum += (2.0 * ma * mb + kC1) * (2.0 * covariance + kC2) / ((ma * ma + mb * mb + kC1) * (variances + kC2));
  }
  return sum / static_cast<double>(mean_a.size());
}

}  // namespace

double psnr(const Frames& a, const Frames& b) {
  check_same_size(a, b);
  // Exact: 2^64 / 255^2 values would be needed to overflow.
  uint64_t squares = 0;
  for (size_t i = 0; i < a.rgb.size(); ++i) {
    const int difference = int{a.rgb[i]} - int{b.rgb[i]};
    squares += static_cast<uint64_t>(difference * difference);
  }
  if (squares == 0) return std::numeric_limits<double>::infinity();
  return 10.0 * std::log10(kPeak * kPeak * static_cast<double>(a.rgb.size()) / static_cast<double>(squares));
}

double ssim(const Frames& a, const Frames& b) {
  check_same_size(a, b);
  if (a.width < kWindow || a.height < kWindow) {
    throw Error(ErrorCode::kInvalidArgument, "expected sides of at least 11 pixels, found " + size_text(a), "SSIM");
  }
  double sum = 0.0;
  for (int frame = 0; frame < a.count; ++frame) {
    sum += ssim_of_planes(luma(a, frame), luma(b, frame), static_cast<size_t>(a.width), static_cast<size_t>(a.height));
  }
  return sum / a.count;
}

}  // namespace chipmunk
