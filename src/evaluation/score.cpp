#include "evaluation/score.h"

#include <algorithm>
#include <cmath>

namespace chipmunk {
namespace {

/// Wilson's score interval; sign chooses the bound.
double wilson_bound(const Fraction& fraction, double sign, double if_empty) {
  if (fraction.total == 0) return if_empty;
  constexpr double kZ = 1.959964;  // 95 % of a normal distribution
  const auto n = static_cast<double>(fraction.total);
  const double p = fraction.value();
  const double spread = kZ * std::sqrt(p * (1 - p) / n + kZ * kZ / (4 * n * n));
  return std::clamp((p + kZ * kZ / (2 * n) + sign * spread) / (1 + kZ * kZ / n), 0.0, 1.0);
}

}  // namespace

void Fraction::add(bool correct) {
  right += correct ? 1 : 0;
  ++total;
}

double Fraction::value() const { return total == 0 ? 0.0 : static_cast<double>(right) / static_cast<double>(total); }
double Fraction::low() const { return wilson_bound(*this, -1, 0.0); }
double Fraction::high() const { return wilson_bound(*this, 1, 1.0); }

void ScoreRow::add(const SceneVerdict& verdict) {
  for (const ObjectVerdict& seen : verdict.objects) {
    object.add(seen.found);
    colour.add(seen.colour);
    shape.add(seen.shape);
  }
  for (const bool holds : verdict.relations) relation.add(holds);
  all_correct.add(verdict.all_correct);
}

void Score::add(const SceneSpec& scene, const SceneVerdict& verdict) {
  all.add(verdict);
  if (scene.held_out) held_out.add(verdict);
}

}  // namespace chipmunk
