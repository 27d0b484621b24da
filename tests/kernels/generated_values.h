#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <random>
#include <string>
#include <vector>

#include "core/context.h"

/// What all generated problems draw from, and what bounds the errors of their results.
namespace chipmunk::test {

/// A normal value that depends on index and seed alone.
float scattered_normal(uint64_t index, uint64_t seed);

/// An integer in [low, high] whose logarithm is about uniform.
int64_t log_uniform(std::mt19937_64& engine, int64_t low, int64_t high);

template <class T>
T choose(std::mt19937_64& engine, std::initializer_list<T> values) {
  return *(values.begin() + engine() % values.size());
}

float round_to_bf16(float value);

/// A dense device tensor's values, f32 or bf16.
std::vector<float> read_floats(const Context& context, const Tensor& tensor);

/// Collects the errors of a result, and those of plain bf16 code, which bound them.
class ErrorBound {
 public:
  /// plain is rounded to bf16 here. unavoidable: how far off f32 sums of the right size may be, where what follows them
  /// makes them small.
  void add(double got, double exact, double plain, double unavoidable = 0.0);
  /// Where plain code happens to be exact, rounding a result once is no error either.
  void expect_met(const std::string& what) const;

 private:
  bool nan_matches_ = true;
  double largest_ = 0.0, plain_largest_ = 0.0, sum_ = 0.0, plain_sum_ = 0.0, value_largest_ = 0.0, value_sum_ = 0.0;
};

}  // namespace chipmunk::test
