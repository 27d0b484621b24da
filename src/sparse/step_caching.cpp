#include "sparse/step_caching.h"

#include <cmath>
#include <limits>

namespace chipmunk {

void MovementEstimate::observe(double sigma, std::span<const float> output) {
  if (last_.size() == output.size() && sigma != last_sigma_) {
    double difference = 0.0, size = 0.0;
    for (size_t i = 0; i < output.size(); ++i) {
      const double value = static_cast<double>(output[i]), moved = value - static_cast<double>(last_[i]);
      difference += moved * moved;
      size += value * value;
    }
    const double relative = size > 0.0 ? std::sqrt(difference / size) : std::numeric_limits<double>::infinity();
    rate_ = relative / std::abs(sigma - last_sigma_);
  }
  last_.assign(output.begin(), output.end());
  last_sigma_ = sigma;
}

double MovementEstimate::expected(double sigma) const {
  if (rate_ < 0.0) return std::numeric_limits<double>::infinity();
  return rate_ * std::abs(last_sigma_ - sigma);
}

}  // namespace chipmunk
