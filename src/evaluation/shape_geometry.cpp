#include "evaluation/shape_geometry.h"

#include <algorithm>
#include <cmath>

namespace chipmunk {
namespace {

constexpr double kPi = 3.14159265358979323846;

double star_distance(double x, double y) {
  constexpr double kOuter = 1.22, kInner = 0.52, kTurn = 2 * kPi / 5;
  // Folded into half of one point, whose edge is the line from the tip to the notch.
  const double angle = std::atan2(x, -y);
  const double fold = std::abs(angle - kTurn * std::round(angle / kTurn));
  const double length = std::hypot(x, y);
  const double notch_x = kInner * std::cos(kTurn / 2), notch_y = kInner * std::sin(kTurn / 2);
  const double edge_x = notch_x - kOuter, edge_y = notch_y;
  return ((length * std::cos(fold) - kOuter) * edge_y - length * std::sin(fold) * edge_x) / std::hypot(edge_x, edge_y);
}

double heart_distance(double x, double y) {
  // A square on its corner under two lobes centred on its upper sides.
  constexpr double kHalfSide = 0.62, kLobe = 0.56;
  const double ax = std::abs(x), down = y - 0.12;
  const double square = std::max(std::abs(x + down), std::abs(x - down)) / std::sqrt(2.0) - kHalfSide;
  const double centre = kHalfSide / std::sqrt(2.0);
  return std::min(square, std::hypot(ax - centre, down + centre) - kLobe);
}

double cross_distance(double x, double y) {
  constexpr double kLength = 1.02, kHalfWidth = 0.36;
  const double ax = std::abs(x), ay = std::abs(y);
  return std::min(std::max(ax - kLength, ay - kHalfWidth), std::max(ay - kLength, ax - kHalfWidth));
}

ShapeMoments measure(Shape shape) {
  constexpr int kSamples = 400;
  const double step = 2 * shape_reach(shape) / kSamples;
  ShapeMoments sum{0, 0, 0};
  for (int row = 0; row < kSamples; ++row) {
    for (int column = 0; column < kSamples; ++column) {
      const double x = (column + 0.5) * step - shape_reach(shape), y = (row + 0.5) * step - shape_reach(shape);
      if (shape_distance(shape, x, y) > 0) continue;
      sum.area += 1;
      sum.x += x;
      sum.y += y;
    }
  }
  return {sum.area * step * step, sum.x / sum.area, sum.y / sum.area};
}

}  // namespace

double shape_distance(Shape shape, double x, double y) {
  constexpr double kDiamondWidth = 0.66, kDiamondHeight = 1.18;
  switch (shape) {
    case Shape::kCircle: return std::hypot(x, y) - 1;
    case Shape::kSquare: return std::max(std::abs(x), std::abs(y)) - 0.88;
    case Shape::kTriangle: return std::max(0.5 * std::sqrt(3.0) * std::abs(x) - 0.5 * y, y) - 0.62;
    case Shape::kStar: return star_distance(x, y);
    case Shape::kHeart: return heart_distance(x, y);
    case Shape::kCross: return cross_distance(x, y);
    case Shape::kRing: return std::abs(std::hypot(x, y) - 0.83) - 0.23;
    case Shape::kDiamond:
      return (std::abs(x) / kDiamondWidth + std::abs(y) / kDiamondHeight - 1) * kDiamondWidth * kDiamondHeight /
             std::hypot(kDiamondWidth, kDiamondHeight);
  }
  return 0;
}

double shape_reach(Shape shape) {
  constexpr std::array<double, kShapeCount> kReach = {1.00, 1.25, 1.25, 1.25, 1.20, 1.10, 1.08, 1.20};
  return kReach[static_cast<size_t>(shape)];
}

const ShapeMoments& shape_moments(Shape shape) {
  static const std::array<ShapeMoments, kShapeCount> kMoments = [] {
    std::array<ShapeMoments, kShapeCount> moments{};
    for (int i = 0; i < kShapeCount; ++i) moments[static_cast<size_t>(i)] = measure(static_cast<Shape>(i));
    return moments;
  }();
  return kMoments[static_cast<size_t>(shape)];
}

}  // namespace chipmunk
