#include "kernels/generated_values.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/float_formats.h"

namespace chipmunk::test {
namespace {

/// A table of normal values, from which tensors take theirs: drawing each would take minutes.
const std::vector<float>& normal_table() {
  static const std::vector<float> table = [] {
    std::vector<float> values(1 << 18);
    std::mt19937_64 engine(1);
    std::normal_distribution<float> normal;
    for (float& value : values) value = normal(engine);
    return values;
  }();
  return table;
}

}  // namespace

float scattered_normal(uint64_t index, uint64_t seed) {
  uint64_t hash = (index + seed * 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
  hash ^= hash >> 29;
  return normal_table()[hash & (normal_table().size() - 1)];
}

int64_t log_uniform(std::mt19937_64& engine, int64_t low, int64_t high) {
  std::uniform_real_distribution<double> uniform(std::log(static_cast<double>(low)),
                                                 std::log(static_cast<double>(high) + 1.0));
  return std::clamp(static_cast<int64_t>(std::exp(uniform(engine))), low, high);
}

float round_to_bf16(float value) { return bf16_to_float(float_to_bf16(value)); }

std::vector<float> read_floats(const Context& context, const Tensor& tensor) {
  const Tensor host = context.to_host(tensor);
  std::vector<float> values(static_cast<size_t>(host.numel()));
  for (int64_t i = 0; i < host.numel(); ++i) {
    values[static_cast<size_t>(i)] = host.dtype() == DType::kF32
                                         ? static_cast<const float*>(host.data())[i]
                                         : bf16_to_float(static_cast<const uint16_t*>(host.data())[i]);
  }
  return values;
}

void ErrorBound::add(double got, double exact, double plain, double unavoidable) {
  if (std::isnan(exact) || std::isnan(got)) {
    nan_matches_ = nan_matches_ && std::isnan(exact) == std::isnan(got);
    return;
  }
  const double error = std::max(std::abs(got - exact) - unavoidable, 0.0);
  const double plain_error = std::abs(round_to_bf16(static_cast<float>(plain)) - exact);
  largest_ = std::max(largest_, error);
  plain_largest_ = std::max(plain_largest_, plain_error);
  sum_ += error;
  plain_sum_ += plain_error;
  value_largest_ = std::max(value_largest_, std::abs(exact));
  value_sum_ += std::abs(exact);
}

void ErrorBound::expect_met(const std::string& what) const {
  EXPECT_TRUE(nan_matches_) << what << ": NaN in other places";
  EXPECT_LE(largest_, 2.0 * std::max(plain_largest_, 0x1p-9 * value_largest_)) << what;
  EXPECT_LE(sum_, 1.5 * std::max(plain_sum_, 0x1p-10 * value_sum_)) << what;
}

}  // namespace chipmunk::test
