#include "conformance/comparison.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/float_formats.h"

namespace chipmunk::conformance {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

template <typename T>
Comparison compare_integers(const Tensor& got, const Tensor& expected) {
  int64_t wrong = 0;
  for (int64_t i = 0; i < expected.numel(); ++i) {
    if (got.data_as<T>()[i] != expected.data_as<T>()[i]) ++wrong;
  }
  if (wrong == 0) return {true, 0.0, {}};
  return {false, kInfinity, std::to_string(wrong) + " of " + std::to_string(expected.numel()) + " integers differ"};
}

}  // namespace

Comparison compare(const Tensor& got, const Expectation& expectation, Rule rule, double bound) {
  const Tensor& expected = expectation.value;
  if (got.shape() != expected.shape()) {
    return {false, kInfinity, "expected shape " + to_string(expected.shape()) + ", found " + to_string(got.shape())};
  }
  if (!is_floating(expected.dtype())) {
    if (got.dtype() != expected.dtype()) {
      return {false, kInfinity, "expected " + expected.describe() + ", found " + got.describe()};
    }
    return expected.dtype() == DType::kU8 ? compare_integers<uint8_t>(got, expected)
                                          : compare_integers<int32_t>(got, expected);
  }
  Comparison result;
  double squared_error = 0.0, squared_norm = 0.0;
  for (int64_t i = 0; i < expected.numel(); ++i) {
    const double want = static_cast<double>(load_as_float(expected.data(), expected.dtype(), i));
    const double error = std::abs(static_cast<double>(load_as_float(got.data(), got.dtype(), i)) - want);
    if (std::isnan(error)) return {false, kInfinity, "NaN at element " + std::to_string(i)};
    squared_error += error * error;
    squared_norm += want * want;
    if (rule == Rule::kElementwise) {
      result.worst = std::max(result.worst, error / (expectation.atol + expectation.rtol * std::abs(want)));
    }
  }
  if (rule == Rule::kRelativeNorm) result.worst = std::sqrt(squared_error) / (bound * std::sqrt(squared_norm));
  result.passed = result.worst <= 1.0;
  return result;
}

}  // namespace chipmunk::conformance
