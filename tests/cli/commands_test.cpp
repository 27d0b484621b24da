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
  for (const std::string command :
       {"generate", "inspect", "schedule", "evaluate", "compare", "sparsity", "bench", "version"}) {
    const ProgramResult result = run_chipmunk({command, "--help"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.err, "");
    expect_parts(result.out, {"Usage: chipmunk " + command});
  }
  for (const std::string command : {"generate", "evaluate", "compare"}) {
    expect_parts(run_chipmunk({command, "--help"}).out, {"--offload none|text|blocks [none]"});
  }
  const ProgramResult overview = run_chipmunk({"--help"});
  EXPECT_EQ(overview.exit_code, 0);
  expect_parts(overview.out, {"generate", "inspect", "schedule", "evaluate", "sparsity", "version"});
}

TEST(Version, SaysHowItWasBuilt) {
  const ProgramResult result = run_chipmunk({"version"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  expect_parts(result.out, {kVersion, "compiler: ", "build type: ", "CUDA", "threads"});
  // What there is to compute with, or why there is no GPU.
  const std::string cuda = result.out.substr(result.out.find("\nCUDA: ") + 1);
  const bool has_gpu = cuda.find("\ncuda:0: ") != std::string::npos;
  const bool says_why = cuda.find("built without CUDA") != std::string::npos ||
                        cuda.find("no driver") != std::string::npos || cuda.find("no device: ") != std::string::npos;
  EXPECT_NE(has_gpu, says_why) << result.out;
  const ProgramResult flag = run_chipmunk({"--version"});
  EXPECT_EQ(flag.exit_code, 0);
  EXPECT_EQ(flag.out, kVersion + "\n");
}

TEST(Inspect, TellsOfTheDevices) {
  expect_parts(run_chipmunk({"inspect", "--device"}).out, {"threads", "instructions", "cuda"});
  const Json json = Json::parse(run_chipmunk({"inspect", "--device", "--json"}).out);
  EXPECT_GT(json.at("cpu").at("threads").get<int>(), 0);
  EXPECT_TRUE(json.at("gpus").is_array());
  EXPECT_EQ(run_chipmunk({"inspect"}).exit_code, 2);
  EXPECT_EQ(run_chipmunk({"inspect", "models", "--device"}).exit_code, 2);
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

TEST(Schedule, SparsityAddsWhatStepsComputeAndSave) {
  const ProgramResult text = run_chipmunk({"schedule", "--steps", "12", "--sparsity", "flux-caching"});
  ASSERT_EQ(text.exit_code, 0) << text.err;
  expect_parts(text.out, {"flux-caching: ", "of the dense multiply-adds", "512 text tokens", "refresh", "select",
                          "skip", "columns", "work"});
  const ProgramResult json = run_chipmunk({"schedule", "--steps", "12", "--sparsity", "flux-caching", "--json"});
  ASSERT_EQ(json.exit_code, 0) << json.err;
  const Json report = Json::parse(json.out);
  EXPECT_EQ(report["sparsity"], "flux-caching");
  EXPECT_EQ(report["text_tokens"], 512);
  EXPECT_GT(report["share_of_dense_work"], 0.2);
  EXPECT_LT(report["share_of_dense_work"], 0.6);
  const Json& steps = report["steps"];
  ASSERT_EQ(steps.size(), 12u);
  EXPECT_EQ(steps[1]["attention"], "refresh");
  EXPECT_EQ(steps[7]["attention"], "skip");
  EXPECT_EQ(steps[7]["share_of_dense_work"], 0.0);
  // 57 layers, two of them dense; 761 of 4608 columns, the fraction 0.165 rounded up or not.
  EXPECT_NEAR(steps[2]["attention_kept"].get<double>(), (2.0 + 55.0 * 0.165) / 57.0, 1e-3);
  EXPECT_FALSE(Json::parse(run_chipmunk({"schedule", "--json"}).out)["steps"][0].contains("attention_kept"));
}

TEST(Schedule, SparsityOfAModelTakesItsSizes) {
  Workbench bench;
  edit_json(bench.damage("tokenizer_2/tokenizer_config.json"), [](Json& json) { json["model_max_length"] = 100; });
  const ProgramResult result = run_chipmunk(bench.expand(
      {"schedule", "-m", "{model}", "-W", "64", "-H", "64", "--steps", "4", "--sparsity", "flux", "--json"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json report = Json::parse(result.out);
  EXPECT_EQ(report["text_tokens"], 100);
  // Five layers, two of them dense.
  EXPECT_GT(report["steps"][2]["attention_kept"].get<double>(), 0.4);
  EXPECT_LT(report["steps"][2]["attention_kept"].get<double>(), 0.6);
}

TEST(Sparsity, ListsPresetsAndShowsWhatCheckAccepts) {
  const Workbench bench;
  const ProgramResult names = run_chipmunk({"sparsity", "show"});
  EXPECT_EQ(names.exit_code, 0) << names.err;
  expect_parts(names.out, {"flux\n", "flux-caching\n", "hunyuan\n", "demo\n"});
  const ProgramResult shown = run_chipmunk({"sparsity", "show", "flux"});
  EXPECT_EQ(shown.exit_code, 0) << shown.err;
  expect_parts(shown.out, {"attn:\n", "top_keys: 0.165\n", "mlp:\n"});
  write_text(bench.folder() / "flux.yml", shown.out);
  const ProgramResult checked = run_chipmunk(bench.expand({"sparsity", "check", "{tmp}/flux.yml"}));
  EXPECT_EQ(checked.exit_code, 0) << checked.err;
  expect_parts(checked.out, {"flux.yml: valid"});
  const ProgramResult again = run_chipmunk(bench.expand({"sparsity", "show", "{tmp}/flux.yml"}));
  EXPECT_EQ(again.out, shown.out);
}

TEST(Sparsity, KeysWithoutEffectAreNamed) {
  const Workbench bench;
  write_text(bench.folder() / "a.yml", "mlp:\n  is_enabled: false\nshould_profile: true\n");
  const ProgramResult result = run_chipmunk(bench.expand({"sparsity", "check", "{tmp}/a.yml"}));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(result.err.starts_with("chipmunk: notice: ")) << result.err;
  expect_parts(result.err, {"a.yml", "should_profile"});
}

}  // namespace
}  // namespace chipmunk::testing
