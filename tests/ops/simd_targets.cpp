#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cstdlib>
#include <string>

/// CHIPMUNK_TEST_SIMD=baseline|AVX2 makes this program use an older instruction set than the processor's, so that the
/// code that other machines run is tested here. Set before the first op, it holds for all.
namespace chipmunk::test {
namespace {

class SimdTarget : public ::testing::Environment {
 public:
  void SetUp() override {
    const char* wanted = std::getenv("CHIPMUNK_TEST_SIMD");
    if (wanted == nullptr) return;
    const std::string name = wanted;
    ASSERT_TRUE(name == "baseline" || name == "AVX2") << "CHIPMUNK_TEST_SIMD=" << name << ", expected baseline or AVX2";
    const int64_t target = name == "AVX2" ? HWY_AVX2 : HWY_STATIC_TARGET;
    if ((hwy::SupportedTargets() & target) == 0) GTEST_SKIP() << "the processor has no " << name;
    hwy::SetSupportedTargetsForTest(target);
    ASSERT_EQ(hwy::SupportedTargets(), target);
  }
};

const ::testing::Environment* const kEnvironment = ::testing::AddGlobalTestEnvironment(new SimdTarget);

}  // namespace
}  // namespace chipmunk::test
