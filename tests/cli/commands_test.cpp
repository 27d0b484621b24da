#include <gtest/gtest.h>

#include "program.h"
#include "workbench.h"

// inspect, schedule, version and the help texts.
namespace chipmunk::testing {
namespace {

namespace fs = std::filesystem;

const std::string kVersion = std::string("chipmunk ") + CHIPMUNK_VERSION;

void expect_parts(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    EXPECT_NE(text.find(part), std::string::npos) << "expected \"" << part << "\" in: " << text;
  }
}

TEST(Help, EveryCommandHasOne) {
  for (const std::string command : {"generate", "inspect", "schedule", "version"}) {
    const ProgramResult result = run_chipmunk({command, "--help"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.err, "");
    expect_parts(result.out, {"Usage: chipmunk " + command});
  }
  const ProgramResult overview = run_chipmunk({"--help"});
  EXPECT_EQ(overview.exit_code, 0);
  expect_parts(overview.out, {"generate", "inspect", "schedule", "version"});
}

TEST(Version, SaysHowItWasBuilt) {
  const ProgramResult result = run_chipmunk({"version"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  expect_parts(result.out, {kVersion, "compiler: ", "build type: ", "CUDA", "threads"});
  const ProgramResult flag = run_chipmunk({"--version"});
  EXPECT_EQ(flag.exit_code, 0);
  EXPECT_EQ(flag.out, kVersion + "\n");
}

TEST(Inspect, DescribesAFolder) {
  const Workbench bench;
  const ProgramResult result = run_chipmunk(bench.expand({"inspect", "{model}"}));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  expect_parts(result.out, {"FluxPipeline", "FluxTransformer2DModel", "552.4 k parameters", "BF16", "AutoencoderKL",
                            "CLIPTextModel", "T5EncoderModel"});
  EXPECT_EQ(result.out.find("missing"), std::string::npos);
}

TEST(Inspect, JsonListsTensorsOnDemand) {
  const Workbench bench;
  const ProgramResult result = run_chipmunk(bench.expand({"inspect", "{model}/vae", "--json", "--tensors"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json report = Json::parse(result.out);
  EXPECT_EQ(report["architecture"], "AutoencoderKL");
  EXPECT_EQ(report["complete"], true);
  ASSERT_EQ(report["components"].size(), 1u);
  const Json& tensors = report["components"][0]["tensors"];
  EXPECT_EQ(tensors.size(), 240u);
  EXPECT_EQ(tensors[0]["dtype"], "F32");
  const Json brief = Json::parse(run_chipmunk(bench.expand({"inspect", "{model}/vae", "--json"})).out);
  EXPECT_FALSE(brief["components"][0].contains("tensors"));
  EXPECT_EQ(brief["bytes"], report["bytes"]);
}

TEST(Inspect, SingleFile) {
  const Workbench bench;
  const ProgramResult result =
      run_chipmunk(bench.expand({"inspect", "{model}/text_encoder/model.safetensors", "--tensors"}));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  expect_parts(result.out, {"CLIPTextModel", "text_model.final_layer_norm.weight", "[32]"});
}

TEST(Inspect, SaysWhatIsMissingAndBroken) {
  Workbench bench;
  fs::remove_all(bench.damage("vae"));
  fs::remove(bench.damage("tokenizer/merges.txt"));
  fs::resize_file(bench.damage("text_encoder/model.safetensors"), 100);
  const ProgramResult text = run_chipmunk(bench.expand({"inspect", "{model}"}));
  EXPECT_EQ(text.exit_code, 1);
  expect_parts(text.out, {"missing: the folder vae", "missing: merges.txt", "broken: "});
  EXPECT_TRUE(text.err.starts_with("chipmunk: error: ")) << text.err;
  expect_parts(text.err, {"vae: missing the folder vae", "tokenizer: missing merges.txt", "model.safetensors"});
  const ProgramResult json = run_chipmunk(bench.expand({"inspect", "{model}", "--json"}));
  EXPECT_EQ(json.exit_code, 1);
  EXPECT_EQ(Json::parse(json.out)["complete"], false);
}

TEST(Inspect, ReportsAFullDisk) {
  const Workbench bench;
  ProgramOptions options;
  options.stdout_path = "/dev/full";
  const ProgramResult result = run_chipmunk(bench.expand({"inspect", "{model}"}), options);
  EXPECT_EQ(result.exit_code, 1);
  expect_parts(result.err, {"chipmunk: error: standard output", "No space left on device"});
}

TEST(Schedule, OfFluxDevWithoutAModel) {
  const ProgramResult result = run_chipmunk({"schedule", "--steps", "4", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json report = Json::parse(result.out);
  EXPECT_EQ(report["width"], 1024);
  EXPECT_EQ(report["image_tokens"], 4096);
  const Json& steps = report["steps"];
  ASSERT_EQ(steps.size(), 4u);
  EXPECT_EQ(steps[0]["sigma"], 1.0);
  EXPECT_EQ(steps[0]["timestep"], 1000.0);
  EXPECT_EQ(steps[3]["sigma_next"], 0.0);
  // exp(1.15) / (exp(1.15) + 1 / 0.75 - 1), the dynamic shift at 4096 tokens.
  EXPECT_NEAR(steps[1]["sigma"].get<double>(), 0.904532, 1e-5);
  for (size_t i = 0; i + 1 < steps.size(); ++i) EXPECT_EQ(steps[i]["sigma_next"], steps[i + 1]["sigma"]);
  EXPECT_EQ(steps[0]["attention"], "dense");
}

TEST(Schedule, DependsOnTheModelAndTheSize) {
  const auto second_sigma = [](const std::vector<std::string>& more) {
    const Workbench bench;
    std::vector<std::string> arguments = {"schedule", "--steps", "4", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const ProgramResult result = run_chipmunk(bench.expand(arguments));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return Json::parse(result.out)["steps"][1]["sigma"].get<double>();
  };
  const double native = second_sigma({"-m", "{model}"});
  EXPECT_NEAR(native, second_sigma({}), 1e-6);  // the fixture has FLUX.1-dev's scheduler
  EXPECT_LT(second_sigma({"-m", "{model}", "-W", "256", "-H", "256"}), native);
  EXPECT_NEAR(second_sigma({"-m", "{data}/golden/flux-schnell-tiny/model"}), 0.75, 1e-6);
}

TEST(Schedule, TextHasALineAStep) {
  const ProgramResult result = run_chipmunk({"schedule", "--steps", "28", "-W", "768", "-H", "512"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  expect_parts(result.out, {"768x512", "1536 image tokens", "28 steps", "sigma_next", "1000.000"});
}

}  // namespace
}  // namespace chipmunk::testing
