#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace chipmunk {

/// How far the transformer's output would move if it ran now, estimated from how fast it moved between its last two
/// runs: the relative difference of those outputs per unit of noise level, times the noise level passed since the last
/// run. The estimate grows over consecutive skips and starts again with each run.
class MovementEstimate {
 public:
  /// Records a run at noise level sigma. Values: the output, the same number each time.
  void observe(double sigma, std::span<const float> output);
  /// |v(sigma) - v(last run)| / |v(last run)|, expected; infinity before the second run, so that nothing is skipped on
  /// no evidence.
  double expected(double sigma) const;

 private:
  std::vector<float> last_;
  double last_sigma_ = 0.0;
  double rate_ = -1.0;  // per unit of sigma; negative while unknown
};

}  // namespace chipmunk
