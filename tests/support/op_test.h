#pragma once

#include <gtest/gtest.h>

#include <concepts>
#include <memory>
#include <ostream>
#include <string>
#include <tuple>
#include <vector>

#include "backend.h"
#include "support/reference.h"

/// What the suites of the ops share: devices, a context that guards memory, random tensors, comparison.
namespace chipmunk::test {

/// "cpu" and "cuda": parameters of every suite. Cases of a device that is absent are skipped, or fail where
/// CHIPMUNK_REQUIRE_CUDA=1.
std::vector<std::string> test_devices();
bool device_available(const std::string& device);
bool cuda_is_required();

/// Memory blocks that were found damaged when they were freed.
struct GuardReport {
  int damaged_blocks = 0;
};

/// A context whose every allocation (outputs and scratch memory alike) lies between sentinels and starts as NaN: what
/// an op writes outside of its block is reported, and what it reads before writing shows.
/// multiprocessors: that a GPU's launches are planned for, 0 for its own.
Context make_guarded_context(const std::string& device, int threads, std::shared_ptr<GuardReport> report,
                             int multiprocessors = 0);

/// Base of the suites; the derived test's parameter is (device, case).
class OpTest : public ::testing::Test {
 protected:
  void open(const std::string& device, int threads = 2, int multiprocessors = 0);
  void TearDown() override;

  const Context& context() const { return *context_; }

  /// Normal values around 0, of the dtype, on the device.
  Tensor random(const Dims& shape, DType dtype, float scale = 1.0f);
  /// In the dtype of activations.
  Tensor random(const Dims& shape, float scale = 1.0f) { return random(shape, context().activation_dtype(), scale); }
  /// Like random, but a view into a larger block: `pad` more elements before and after in every dimension.
  Tensor random_view(const Dims& shape, DType dtype, int64_t pad, float scale = 1.0f);
  Tensor random_view(const Dims& shape, int64_t pad) { return random_view(shape, context().activation_dtype(), pad); }
  Tensor from_floats(const Dims& shape, const std::vector<float>& values, DType dtype);
  Tensor from_floats(const Dims& shape, const std::vector<float>& values) {
    return from_floats(shape, values, context().activation_dtype());
  }
  Tensor from_ints(const std::vector<int32_t>& values);

  /// A device tensor's values, views included.
  Array read(const Tensor& tensor);

  /// Epsilon of the activations' dtype: half a unit in the last place of 1.
  double epsilon() const { return context().activation_dtype() == DType::kF32 ? 0x1p-24 : 0x1p-8; }

  /// |got - value| <= factor * epsilon * (magnitude + |value|) everywhere; NaN only where NaN is expected.
  void expect_close(const Array& got, const Reference& expected, double factor);
  void expect_equal(const Array& got, const Array& expected);

 private:
  std::shared_ptr<GuardReport> report_;
  std::unique_ptr<Context> context_;
  uint64_t seed_ = 1;
};

/// A suite whose parameter is (device, Case).
template <class Case>
class OpCaseTest : public OpTest, public ::testing::WithParamInterface<std::tuple<std::string, Case>> {
 protected:
  const std::string& device_name() const { return std::get<0>(this->GetParam()); }
  const Case& test_case() const { return std::get<1>(this->GetParam()); }
};

/// Base of the case structs, so that a failure prints the case's name and not its bytes.
struct NamedCase {
  const char* name;
};
template <std::derived_from<NamedCase> Case>
void PrintTo(const Case& test_case, std::ostream* stream) {
  *stream << test_case.name;
}

/// For suites that need no values of their own: one case a test body.
struct OnlyCase : NamedCase {
  OnlyCase() : NamedCase{"all"} {}
};

/// An output that is a view into a larger block of sentinels.
struct GuardedView {
  Tensor block, view;
  int64_t pad;
};
GuardedView make_guarded_view(const Context& context, const Dims& shape, int64_t pad, DType dtype);
/// Fails unless everything around the view still holds the sentinel.
void expect_untouched(const Context& context, const GuardedView& guarded);

/// Skips or fails the running test if `device` is absent; use first in TEST_P bodies.
#define CHIPMUNK_OPEN_OR_SKIP(device)                                                            \
  do {                                                                                           \
    if (!::chipmunk::test::device_available(device)) {                                           \
      if (::chipmunk::test::cuda_is_required()) FAIL() << "CHIPMUNK_REQUIRE_CUDA=1, but no GPU"; \
      GTEST_SKIP() << "no CUDA device";                                                          \
    }                                                                                            \
    open(device);                                                                                \
  } while (false)

/// Names a parametrised test <device>_<case name>.
struct CaseName {
  template <class Info>
  std::string operator()(const Info& info) const {
    return std::get<0>(info.param) + "_" + std::get<1>(info.param).name;
  }
};

/// Instantiates a suite for all devices and the given cases.
#define CHIPMUNK_INSTANTIATE(suite, cases)                                                                   \
  INSTANTIATE_TEST_SUITE_P(Op, suite,                                                                        \
                           ::testing::Combine(::testing::ValuesIn(::chipmunk::test::test_devices()), cases), \
                           ::chipmunk::test::CaseName())

}  // namespace chipmunk::test
