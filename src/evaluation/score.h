#pragma once

#include <cstdint>

#include "evaluation/scene_checker.h"

namespace chipmunk {

/// How often something was right.
struct Fraction {
  int64_t right = 0, total = 0;

  void add(bool correct);
  /// 0 where nothing was counted.
  double value() const;
  /// Bounds of the 95 % Wilson interval; [0, 1] where nothing was counted.
  double low() const;
  double high() const;
};

struct ScoreRow {
  Fraction object, colour, shape, relation, all_correct;

  void add(const SceneVerdict& verdict);
};

/// Of a suite: all scenes, and those with a combination that training never showed.
struct Score {
  ScoreRow all, held_out;

  void add(const SceneSpec& scene, const SceneVerdict& verdict);
};

}  // namespace chipmunk
