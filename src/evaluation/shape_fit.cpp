#include "evaluation/shape_fit.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "evaluation/shape_geometry.h"

namespace chipmunk {
namespace {

constexpr int kGrid = 36;           // samples a side: a ring's width is three of them
constexpr double kMaxAngle = 0.35;  // scenes turn objects by at most 0.15
constexpr double kHiddenWeight = 0.12;

/// A region's surroundings, averaged onto a square grid.
struct Patch {
  double x0 = 0, y0 = 0, step = 1;
  std::array<double, kGrid * kGrid> inside{}, weight{};
  bool hidden = false;  ///< other regions lie in it
};

Patch make_patch(const Segmentation& segmentation, int index) {
  const Region& region = segmentation.regions[static_cast<size_t>(index)];
  const double side = 1.5 * std::max(region.right - region.left + 1, region.bottom - region.top + 1);
  Patch patch;
  patch.step = side / kGrid;
  patch.x0 = 0.5 * (region.left + region.right + 1 - side);
  patch.y0 = 0.5 * (region.top + region.bottom + 1 - side);
  const int samples = std::max(1, static_cast<int>(std::ceil(patch.step)));
  for (int i = 0; i < kGrid * kGrid; ++i) {
    double own = 0, other = 0, outside = 0;
    for (int s = 0; s < samples * samples; ++s) {
      const double x = patch.x0 + patch.step * (i % kGrid + (s % samples + 0.5) / samples);
      const double y = patch.y0 + patch.step * (i / kGrid + (s / samples + 0.5) / samples);
      if (x < 0 || y < 0 || x >= segmentation.width || y >= segmentation.height) {
        outside += 1;
        continue;
      }
      const int label = segmentation.label(static_cast<int>(x), static_cast<int>(y));
      own += label == index ? 1 : 0;
      other += label >= 0 && label != index ? 1 : 0;
    }
    const double count = samples * samples;
    const auto at = static_cast<size_t>(i);
    patch.inside[at] = own / count;
    patch.weight[at] = 1 - (1 - kHiddenWeight) * (other + outside) / count;
    patch.hidden = patch.hidden || other > 0;
  }
  return patch;
}

double overlap(const Patch& patch, const ShapeFit& fit) {
  double shared = 0, joined = 1e-9;
  for (int i = 0; i < kGrid * kGrid; ++i) {
    const double x = patch.x0 + patch.step * (i % kGrid + 0.5), y = patch.y0 + patch.step * (i / kGrid + 0.5);
    const auto at = static_cast<size_t>(i);
    const double cover = std::clamp(0.5 - fit.distance(x, y) / patch.step, 0.0, 1.0);
    shared += std::min(cover, patch.inside[at]);
    joined += patch.weight[at] * std::max(cover, patch.inside[at]) + (1 - patch.weight[at]) * patch.inside[at];
  }
  return shared / joined;
}

/// Moves one parameter at a time, with shrinking steps, while that helps.
void refine(const Patch& patch, int levels, ShapeFit* fit) {
  fit->overlap = overlap(patch, *fit);
  double step = 0.12;
  for (int level = 0; level < levels; ++level, step *= 0.5) {
    bool moved = true;
    for (int round = 0; round < 4 && moved; ++round) {
      moved = false;
      for (int parameter = 0; parameter < 8; ++parameter) {
        ShapeFit trial = *fit;
        const double change = parameter % 2 == 0 ? step : -step;
        switch (parameter / 2) {
          case 0: trial.x += change * fit->radius; break;
          case 1: trial.y += change * fit->radius; break;
          case 2: trial.radius *= 1 + change; break;
          default: trial.angle = std::clamp(trial.angle + change, -kMaxAngle, kMaxAngle); break;
        }
        trial.overlap = overlap(patch, trial);
        if (trial.overlap <= fit->overlap) continue;
        *fit = trial;
        moved = true;
      }
    }
  }
}

/// Centre, in pixels, of what other regions cover of the patch.
std::array<double, 2> hidden_centre(const Patch& patch) {
  double x = 0, y = 0, sum = 1e-9;
  for (int i = 0; i < kGrid * kGrid; ++i) {
    const double weight = 1 - patch.weight[static_cast<size_t>(i)];
    x += weight * (patch.x0 + patch.step * (i % kGrid + 0.5));
    y += weight * (patch.y0 + patch.step * (i / kGrid + 0.5));
    sum += weight;
  }
  return {x / sum, y / sum};
}

ShapeFit fit_one(const Patch& patch, const Region& region, Shape shape) {
  const ShapeMoments& moments = shape_moments(shape);
  const double radius = std::sqrt(region.area / moments.area);
  ShapeFit best;
  best.overlap = -1;
  const std::array<double, 2> hidden = hidden_centre(patch);
  const double length = std::hypot(hidden[0] - region.x, hidden[1] - region.y) + 1e-9;
  // A partly hidden shape is larger than its region, and its centre lies towards what hides it.
  for (int start = 0; start < (patch.hidden ? 3 : 1); ++start) {
    const double larger = radius * (1 + 0.15 * start), shift = 0.2 * start * radius;
    ShapeFit fit{shape,
                 region.x + 0.5 - larger * moments.x + shift * (hidden[0] - region.x) / length,
                 region.y + 0.5 - larger * moments.y + shift * (hidden[1] - region.y) / length,
                 larger,
                 0,
                 0};
    refine(patch, 3, &fit);
    if (fit.overlap > best.overlap) best = fit;
  }
  return best;
}

}  // namespace

double ShapeFit::distance(double px, double py) const {
  const double dx = (px - x) / radius, dy = (py - y) / radius;
  const double cosine = std::cos(angle), sine = std::sin(angle);
  return radius * shape_distance(shape, dx * cosine + dy * sine, dy * cosine - dx * sine);
}

ShapeFit fit_shape(const Segmentation& segmentation, int region) {
  const Patch patch = make_patch(segmentation, region);
  ShapeFit best;
  best.overlap = -1;
  for (int i = 0; i < kShapeCount; ++i) {
    const ShapeFit fit = fit_one(patch, segmentation.regions[static_cast<size_t>(region)], static_cast<Shape>(i));
    if (fit.overlap > best.overlap) best = fit;
  }
  refine(patch, 5, &best);
  return best;
}

}  // namespace chipmunk
