#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "program.h"
#include "workbench.h"

namespace chipmunk::testing {
namespace {

ProgramResult run_tiny(const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {"bench", "mlp", "--preset", "tiny", "--device", "cpu", "--rounds", "2"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return run_chipmunk(arguments);
}

// The tiny preset: 300 tokens, 128 channels, 512 features, 256 output channels.
TEST(BenchMlp, ChecksAndTimesEveryKindOfStep) {
  const ProgramResult result = run_tiny({"--json", "--quiet"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  const Json report = Json::parse(result.out);
  std::vector<std::string> kernels;
  for (const Json& entry : report["kernels"]) {
    const std::string kernel = entry["kernel"];
    kernels.push_back(kernel);
    EXPECT_EQ(entry["preset"], "tiny");
    EXPECT_LE(entry["min_ms"], entry["median_ms"]);
    EXPECT_LE(entry["median_ms"], entry["max_ms"]);
    const double ms = entry["median_ms"], kept = entry["kept"];
    EXPECT_GT(ms, 0.0);
    if (kernel == "selection") {
      EXPECT_EQ(entry["relative_error"], 0.0) << "its lists are those of the host";
      EXPECT_FALSE(entry.contains("useful_tflops"));
      continue;
    }
    EXPECT_GT(entry["relative_error"], 0.0);
    EXPECT_LT(entry["relative_error"], 1e-5) << "f32 on the CPU";
    const double flops = 2.0 * 300 * 512 * (128 + 256) * kept;
    EXPECT_NEAR(entry["useful_tflops"].get<double>() * ms * 1e9, flops, 1e-6 * flops);
    EXPECT_EQ(entry.contains("times_dense"), kernel != "dense");
  }
  EXPECT_EQ(kernels, (std::vector<std::string>{"dense", "full step", "select + sparse", "sparse", "selection",
                                               "select + sparse", "sparse", "selection"}));
  // Of 512 features 30 %, rounded up; then as many and 5 % of the others.
  const Json &top = report["kernels"][3], &random = report["kernels"][6];
  EXPECT_EQ(top["kept"], 154.0 / 512.0);
  EXPECT_EQ(random["random_keys"], 0.05);
  EXPECT_NEAR(random["kept"], 0.3 + 0.7 * 0.05, 0.02);
}

TEST(BenchMlp, WithFp8) {
  const ProgramResult result = run_tiny({"--json", "--quiet", "--fp8"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json kernels = Json::parse(result.out)["kernels"];
  ASSERT_EQ(kernels.size(), 12u);
  for (size_t i = 8; i < kernels.size(); ++i) {
    EXPECT_EQ(kernels[i]["kernel"], i % 2 == 0 ? "select + sparse, fp8" : "sparse, fp8");
    EXPECT_GT(kernels[i]["relative_error"], 0.0);
    EXPECT_LT(kernels[i]["relative_error"], 1e-5) << "f32 on the CPU, of rounded operands";
    EXPECT_GT(kernels[i]["times_dense"], 0.0);
  }
}

TEST(BenchMlp, ShowsATable) {
  const ProgramResult result = run_tiny({"--threads", "1"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* part :
       {"x dense", "tiny       dense                 100.0%", "tiny       select + sparse        30.1%"}) {
    EXPECT_NE(result.out.find(part), std::string::npos) << part << " in: " << result.out;
  }
  EXPECT_NE(result.err.find("tiny: 300 tokens"), std::string::npos) << result.err;
}

TEST(BenchMlp, RefusesBadUse) {
  const ProgramResult rounds = run_chipmunk({"bench", "mlp", "--rounds", "0"});
  EXPECT_EQ(rounds.exit_code, 2);
  EXPECT_NE(rounds.err.find("--rounds: expected 1 to 1000, found 0"), std::string::npos) << rounds.err;
  const ProgramResult preset = run_chipmunk({"bench", "mlp", "--preset", "wan"});
  EXPECT_EQ(preset.exit_code, 2);
  EXPECT_NE(preset.err.find("--preset: expected flux, flux-image, hunyuan, tiny; found \"wan\""), std::string::npos)
      << preset.err;
}

}  // namespace
}  // namespace chipmunk::testing
