#pragma once

#include <string>

#include "conformance/case_folder.h"

namespace chipmunk::conformance {

/// How a computed tensor compares with its expectation.
struct Comparison {
  bool passed = false;
  /// Worst error over allowed: at most 1 where it passed. Infinite for NaN or another shape.
  double worst = 0.0;
  std::string detail;  // why it failed beyond a number, or empty
};

enum class Rule {
  kElementwise,  ///< |got - expected| <= atol + rtol |expected| for each element; integers exactly
  kRelativeNorm  ///< ||got - expected|| <= bound ||expected||, for arithmetic in bf16; integers exactly
};

/// got: a dense host tensor, f32 for floating values. bound: of the relative norm.
Comparison compare(const Tensor& got, const Expectation& expected, Rule rule, double bound);

}  // namespace chipmunk::conformance
