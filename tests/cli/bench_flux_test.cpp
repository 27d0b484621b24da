#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "program.h"
#include "workbench.h"

namespace chipmunk::testing {
namespace {

ProgramResult run_tiny(const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {"bench", "flux", "--preset", "tiny", "--device", "cpu", "--rounds", "1"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return run_chipmunk(arguments);
}

// The tiny preset: hidden 128, 2 heads of 64, 24 image tokens of 64 channels, 32 text tokens.
TEST(BenchFlux, CountsTheWorkOfAStep) {
  const ProgramResult result =
      run_tiny({"--json", "--no-text", "--no-vae", "--quiet", "--sparsity", "none", "--steps", "0"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  const Json report = Json::parse(result.out);
  ASSERT_EQ(report["stages"].size(), 1u);
  const Json& step = report["stages"][0];
  EXPECT_EQ(step["stage"], "step");
  EXPECT_GT(step["median_ms"], 0.0);
  EXPECT_GT(step["matmul_clock_tflops"], 0.0);
  EXPECT_GT(step["copy_gb_per_second"], 0.0);
  EXPECT_GE(step["peak_memory_bytes"], report["weight_bytes"]);

  std::map<std::string, Json> kinds;
  double ms = step["rest_ms"];
  for (const Json& kind : step["kinds"]) {
    kinds[kind["kind"]] = kind;
    ms += kind["ms"].get<double>();
  }
  EXPECT_NEAR(ms, step["median_ms"], 1e-6);
  const double tokens = 24 + 32;
  EXPECT_EQ(kinds["attention"]["ops"], 2);
  EXPECT_EQ(kinds["attention"]["flops"], 2 * 4.0 * tokens * tokens * 128);
  // Two layers of 4 x 128 features in both blocks; attention's 128 go through the single block's second one, too.
  // The double block's text and image are one op a layer.
  EXPECT_EQ(kinds["MLP linears"]["ops"], 4);
  EXPECT_EQ(kinds["MLP linears"]["flops"], 2.0 * tokens * 128 * (4 * 512 + 128));
  EXPECT_EQ(kinds["elementwise, norm, copy"]["flops"], 0.0);
  EXPECT_GT(kinds["elementwise, norm, copy"]["bytes"], 0.0);

  int single_qkv = 0, double_qkv = 0;
  for (const Json& linear : step["linears"]) {
    if (linear["epilogue"] != "norm, rotation" || linear["n"] != 384 || linear["k"] != 128) continue;
    if (linear["m"] == 56) single_qkv = linear["ops"];
    if (linear["m"] == 24 && linear.value("second_m", 0) == 32) double_qkv = linear["ops"];
  }
  EXPECT_EQ(single_qkv, 1);
  EXPECT_EQ(double_qkv, 1);
}

TEST(BenchFlux, Fp8AddsAStageAndTakesLessMemory) {
  const ProgramResult result =
      run_tiny({"--json", "--no-text", "--no-vae", "--quiet", "--sparsity", "none", "--steps", "0", "--fp8"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json report = Json::parse(result.out);
  ASSERT_EQ(report["stages"].size(), 2u);
  EXPECT_EQ(report["stages"][1]["stage"], "fp8 step");
  EXPECT_LT(report["fp8_transformer_bytes"], report["transformer_bytes"]);
  int fp8 = 0, all = 0;
  for (const Json& linear : report["stages"][1]["linears"]) {
    all += linear["ops"].get<int>();
    if (linear.contains("fp8")) fp8 += linear["ops"].get<int>();
  }
  // Four kinds in the double block, text and image together, and three in the single block.
  EXPECT_EQ(fp8, 7);
  EXPECT_GT(all, fp8);
}

TEST(BenchFlux, ShowsAllStagesInATable) {
  const ProgramResult result = run_tiny({"--width", "32", "--height", "32", "--text-tokens", "7", "--double-blocks",
                                         "2", "--single-blocks", "0", "--threads", "1", "--steps", "2"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* part : {"32 x 32 pixels, 7 text tokens, hidden 128, 2 double + 0 single blocks, on cpu", "\nstep ",
                           "\ntext ", "\ndecode ", "\nsparse step ", "MLP linears", "convolution", "between ops",
                           "\ndenoising, 2 steps", "\nflux-caching "}) {
    EXPECT_NE(result.out.find(part), std::string::npos) << part << " in: " << result.out;
  }
  EXPECT_NE(result.err.find("decode: op by op"), std::string::npos) << result.err;
}

// Three layers, of which the first two stay dense.
TEST(BenchFlux, TimesSparseGenerations) {
  const ProgramResult result =
      run_tiny({"--json", "--no-text", "--no-vae", "--quiet", "--double-blocks", "2", "--steps", "12"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json report = Json::parse(result.out);
  ASSERT_EQ(report["stages"].size(), 2u);
  const Json& step = report["stages"][1];
  EXPECT_EQ(step["stage"], "sparse step");
  std::map<std::string, Json> kinds;
  for (const Json& kind : step["kinds"]) kinds[kind["kind"]] = kind;
  const double tokens = 24 + 32, kept_keys = 9, features = 512;
  EXPECT_EQ(kinds["column attention"]["ops"], 1);
  EXPECT_EQ(kinds["column attention"]["flops"], 4.0 * tokens * kept_keys * 128);
  EXPECT_EQ(kinds["column MLP"]["ops"], 1);
  EXPECT_GE(kinds["column MLP"]["flops"], 2.0 * tokens * 2 * 128 * 0.3 * features - 1e5);
  EXPECT_LE(kinds["column MLP"]["flops"], 2.0 * tokens * 2 * 128 * 0.5 * features);
  EXPECT_EQ(kinds["selection"]["ops"], 1);

  ASSERT_EQ(report["generations"].size(), 3u);
  const std::vector<std::vector<std::string>> expected = {
      {"dense/full"},
      {"dense/full", "refresh/select", "recache/full", "sparse/select", "sparse/reuse"},
      {"dense/full", "refresh/select", "sparse/select", "skip/skip"}};
  for (size_t i = 0; i < expected.size(); ++i) {
    const Json& generation = report["generations"][i];
    EXPECT_EQ(generation["sparsity"], (std::vector<std::string>{"dense", "flux", "flux-caching"})[i]);
    EXPECT_GT(generation["median_s"], 0.0);
    EXPECT_GT(generation["peak_memory_bytes"], report["weight_bytes"]);
    std::vector<std::string> found;
    int steps = 0;
    for (const Json& kind : generation["step_kinds"]) {
      found.push_back(kind["attention"].get<std::string>() + "/" + kind["mlp"].get<std::string>());
      steps += kind["steps"].get<int>();
    }
    EXPECT_EQ(found, expected[i]);
    EXPECT_EQ(steps, 12);
  }
}

TEST(BenchFlux, RefusesBadSizes) {
  const std::pair<std::vector<std::string>, const char*> bad[] = {
      {{"--width", "100"}, "--width: expected a multiple of 16 from 16 to 16384, found 100"},
      {{"--text-tokens", "0"}, "--text-tokens: expected 1 to 4096, found 0"},
      {{"--single-blocks", "-1"}, "--single-blocks: expected 0 to 1000, found -1"},
      {{"--steps", "-1"}, "--steps: expected 0 to 1000, found -1"},
      {{"--sparsity", "fluxx"}, "fluxx"}};
  for (const auto& [arguments, message] : bad) {
    const ProgramResult result = run_tiny(arguments);
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_NE(result.err.find(message), std::string::npos) << result.err;
  }
  const ProgramResult preset = run_chipmunk({"bench", "flux", "--preset", "large"});
  EXPECT_EQ(preset.exit_code, 2);
  EXPECT_NE(preset.err.find("--preset: expected flux-dev, tiny; found \"large\""), std::string::npos) << preset.err;
}

}  // namespace
}  // namespace chipmunk::testing
