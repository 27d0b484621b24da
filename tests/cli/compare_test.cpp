#include <gtest/gtest.h>

#include <cmath>
#include <csignal>

#include "bad_input.h"
#include "io/png.h"

namespace chipmunk::testing {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

/// A comparison of 32 x 32 pictures in four steps, into {out}.
Names compare_with(const Names& more) {
  Names arguments = {"compare", "-m", "{model}",  "-W",  "32", "-H",   "32",
                     "--steps", "4",  "--device", "cpu", "-o", "{out}"};
  arguments.insert(arguments.end(), {"--threads", "1"});
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

ProgramResult compare(const Workbench& bench, const Names& more) {
  return run_chipmunk(bench.expand(compare_with(more)));
}

Json compare_json(const Workbench& bench) { return Json::parse(read_text(bench.output() / "compare.json")); }

/// JSON itself has no infinity; null is what a number may be in its place.
void expect_number_or_null(const Json& value, const char* what) {
  EXPECT_TRUE(value.is_null() || (value.is_number() && std::isfinite(value.get<double>()))) << what << ": " << value;
}

void expect_keys(const Json& json, const Names& keys) {
  for (const std::string& key : keys) EXPECT_TRUE(json.contains(key)) << key;
}

void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "expected \"" << part << "\" in: " << text.substr(0, 4000);
}

/// A suite of two scenes beside the model's copy.
void add_suite(Workbench* bench) {
  write_text(bench->damage("suite.json"),
             R"({"scenes": [{"prompt": "a red circle", "objects": [{"shape": "circle", "colour": "red"}]},
                 {"prompt": "a blue star", "objects": [{"shape": "star", "colour": "blue"}], "held_out": true}]})");
}

TEST(Compare, WritesPicturesTableJsonAndReport) {
  const Workbench bench;
  write_text(bench.folder() / "prompts.txt", "a cat\n# no prompt\na <dog> & more\n");
  const ProgramResult result =
      compare(bench, {"--prompts", "{tmp}/prompts.txt", "--sparsity", "flux", "--sparsity", "demo", "-s", "5"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(bench.output_names(),
            (Names{"compare.json", "demo", "dense", "flux", "prompts.txt", "report.html", "side_by_side"}));
  EXPECT_EQ(read_text(bench.output() / "prompts.txt"), "a cat\na <dog> & more\n");
  for (const char* part : {"PSNR", "SSIM", "speed-up", "demo", "flux", "report.html"})
    expect_contains(result.out, part);
  expect_contains(result.err, "picture 2/2: dense ");

  const Json report = compare_json(bench);
  EXPECT_EQ(report["prompts"], (Names{"a cat", "a <dog> & more"}));
  EXPECT_EQ(report["seed"], 5);
  EXPECT_EQ(report["num_steps"], 4);
  EXPECT_EQ(report["guidance"], 3.5);
  EXPECT_EQ(report["mass_fractions"].size(), 7u);
  EXPECT_TRUE(report["suite"].is_null());
  ASSERT_EQ(report["variants"].size(), 2u);
  const Json& variant = report["variants"][0];
  EXPECT_EQ(variant["name"], "flux");
  expect_contains(variant["settings"].get<std::string>(), "top_keys: 0.165");
  for (const char* key : {"attention_kept", "mlp_kept"}) {
    EXPECT_GT(variant.at(key), 0.5) << key;
    EXPECT_LT(variant.at(key), 1.0) << key;
  }
  EXPECT_GT(variant["share_of_dense_work"], 0.5);
  EXPECT_GT(variant["speedup"], 0.0);
  EXPECT_GT(variant["psnr"]["mean"], 0.0);
  EXPECT_GT(variant["ssim"]["mean"], 0.0);
  EXPECT_GT(variant["dense_denoise_ms"], 0.0);
  EXPECT_TRUE(variant["scenes"].is_null());
  ASSERT_EQ(variant["pictures"].size(), 2u);
  for (const Json& picture : variant["pictures"]) {
    expect_keys(picture, {"file", "side_by_side", "denoise_ms", "dense_denoise_ms", "latent_error", "skipped_steps",
                          "movement"});
    expect_number_or_null(picture["psnr"], "psnr");
    EXPECT_LE(picture["ssim"], 1.0 + 1e-9);
    EXPECT_TRUE(fs::exists(bench.output() / picture["side_by_side"].get<std::string>()));
  }
  ASSERT_EQ(variant["steps"].size(), 4u);
  ASSERT_EQ(variant["layers"].size(), 5u);
  EXPECT_EQ(variant["steps"][1]["attention"], "refresh");
  EXPECT_EQ(variant["steps"][3]["attention"], "sparse");
  EXPECT_LT(variant["steps"][0]["latent_error"], 1e-5);  // dense, with tokens in another order
  EXPECT_GT(variant["steps"][3]["latent_error"], 0.0);
  EXPECT_EQ(variant["layers"][1]["attention_mass"].size(), 0u);  // kept dense
  EXPECT_EQ(variant["layers"][2]["attention_mass"].size(), 7u);
  EXPECT_LT(variant["layers"][2]["attention_kept"][3], 1.0);
  for (const Json& step : variant["steps"]) {
    expect_keys(step, {"attention", "mlp", "skipped", "movement", "multiply_adds", "latent_error"});
  }
  for (const Json& layer : variant["layers"]) {
    expect_keys(layer, {"attention_kept", "mlp_kept", "attention_mass", "attention_change"});
  }

  const std::string html = read_text(bench.output() / "report.html");
  for (const char* part : {"<svg ", "src=\"data:image/png;base64,iVBOR", "a &lt;dog&gt; &amp; more"}) {
    expect_contains(html, part);
  }
  // Nothing from outside.
  for (const char* part : {"http:", "https:", "<script", "<link", "url("}) {
    EXPECT_EQ(html.find(part), std::string::npos) << part;
  }
}

TEST(Compare, PicturesAreThoseThatGenerateMakes) {
  const Workbench bench;
  ASSERT_EQ(compare(bench, {"-p", "a cat", "--sparsity", "flux", "-s", "1", "--quiet"}).exit_code, 0);
  const auto generated = [&bench](const std::string& name, const Names& more) {
    Names arguments = generate_with({{"--steps", "4"}, {"--output", "{tmp}/" + name}}, more);
    const ProgramResult result = run_chipmunk(bench.expand(arguments));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return read_png(bench.folder() / name).pixels;
  };
  const PngImage dense = read_png(bench.output() / "dense/000.png"), flux = read_png(bench.output() / "flux/000.png");
  EXPECT_TRUE(dense.pixels == generated("dense.png", {}));
  EXPECT_TRUE(flux.pixels == generated("flux.png", {"--sparsity", "flux"}));
  EXPECT_FALSE(flux.pixels == dense.pixels);
  // Dense, sparse, and their difference eight times.
  const PngImage joined = read_png(bench.output() / "side_by_side/flux/000.png");
  ASSERT_EQ(joined.width, 96);
  ASSERT_EQ(joined.height, 32);
  for (size_t y = 0; y < 32; ++y) {
    for (size_t i = 0; i < 96; ++i) {
      const int left = dense.pixels[y * 96 + i], right = flux.pixels[y * 96 + i];
      const uint8_t* row = joined.pixels.data() + y * 288;
      ASSERT_EQ(row[i], left);
      ASSERT_EQ(row[96 + i], right);
      ASSERT_EQ(row[192 + i], std::min(255, 8 * std::abs(left - right)));
    }
  }
}

TEST(Compare, DenseSettingsGiveEqualPictures) {
  const Workbench bench;
  write_text(bench.folder() / "off.yml", "attn: {is_enabled: false}\nmlp: {is_enabled: false}\n");
  const ProgramResult result = compare(bench, {"-p", "a cat", "--sparsity", "{tmp}/off.yml", "--json", "--quiet"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  EXPECT_EQ(result.out, read_text(bench.output() / "compare.json"));
  const Json variant = Json::parse(result.out)["variants"][0];
  EXPECT_EQ(variant["name"], "off");
  EXPECT_TRUE(variant["psnr"]["mean"].is_null());
  EXPECT_EQ(variant["psnr"]["equal_pictures"], 1);
  EXPECT_TRUE(variant["pictures"][0]["psnr"].is_null());
  EXPECT_NEAR(variant["ssim"]["mean"].get<double>(), 1.0, 1e-9);
}

TEST(Compare, Fp8IsAVariantAndThatOfOthers) {
  const Workbench bench;
  const ProgramResult result = compare(bench, {"-p", "a cat", "--fp8", "--sparsity", "demo", "-s", "1", "--quiet"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(bench.output_names(),
            (Names{"compare.json", "demo-fp8", "dense", "fp8", "prompts.txt", "report.html", "side_by_side"}));
  const Json variants = compare_json(bench)["variants"];
  ASSERT_EQ(variants.size(), 2u);
  EXPECT_EQ(variants[0]["name"], "fp8");
  EXPECT_EQ(variants[1]["name"], "demo-fp8");
  EXPECT_GT(variants[0]["psnr"]["mean"].get<double>(), 20.0);
}

TEST(Compare, SuiteIsJudged) {
  Workbench bench;
  add_suite(&bench);
  const ProgramResult result = compare(bench, {"--suite", "scenes", "--sparsity", "demo", "--quiet"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  expect_contains(result.out, "all correct");
  const Json report = compare_json(bench);
  EXPECT_EQ(report["suite"], "scenes");
  for (const Json& run : {report["dense"], report["variants"][0]}) {
    EXPECT_EQ(run["scenes"]["counts"]["all_correct"], 2);
    EXPECT_EQ(run["scenes"]["held_out"]["counts"]["all_correct"], 1);
    EXPECT_EQ(run["scenes"]["intervals"]["all_correct"].size(), 2u);
    EXPECT_TRUE(run["pictures"][0]["all_correct"].is_boolean());
  }
  expect_contains(read_text(bench.output() / "report.html"), "Wilson");
}

TEST(Compare, LimitTakesTheFirstPrompts) {
  Workbench bench;
  add_suite(&bench);
  ASSERT_EQ(compare(bench, {"--suite", "scenes", "--limit", "1", "--sparsity", "demo", "--quiet"}).exit_code, 0);
  EXPECT_EQ(read_text(bench.output() / "prompts.txt"), "a red circle\n");
  EXPECT_FALSE(fs::exists(bench.output() / "dense/001.png"));
}

TEST(Compare, SkippedPromptsLeaveTheOthersAsTheyWere) {
  Workbench bench;
  add_suite(&bench);
  const Names all = {"--suite", "scenes", "--sparsity", "demo", "-s", "3", "--quiet"};
  ASSERT_EQ(compare(bench, all).exit_code, 0);
  const PngImage second = read_png(bench.output() / "demo/001.png");
  const Json whole = compare_json(bench)["variants"][0];
  fs::remove_all(bench.output());
  Names some = all;
  some.insert(some.end(), {"--skip", "1", "--limit", "1"});
  const ProgramResult result = compare(bench, some);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_FALSE(fs::exists(bench.output() / "demo/000.png"));
  EXPECT_TRUE(read_png(bench.output() / "demo/001.png").pixels == second.pixels);
  EXPECT_EQ(read_text(bench.output() / "prompts.txt"), "a blue star\n");
  expect_contains(read_text(bench.output() / "report.html"), "001, PSNR");
  const Json report = compare_json(bench);
  EXPECT_EQ(report["first_picture"], 1);
  EXPECT_EQ(report["seed"], 3);
  ASSERT_EQ(report["variants"][0]["pictures"].size(), 1u);
  EXPECT_EQ(report["variants"][0]["pictures"][0]["psnr"], whole["pictures"][1]["psnr"]);
}

TEST(Compare, WithoutPicturesTheNumbersStay) {
  Workbench bench;
  add_suite(&bench);
  const Names arguments = {"--suite", "scenes", "--sparsity", "demo", "--quiet"};
  ASSERT_EQ(compare(bench, arguments).exit_code, 0);
  const Json with = compare_json(bench)["variants"][0];
  fs::remove_all(bench.output());
  Names without = arguments;
  without.emplace_back("--no-pictures");
  const ProgramResult result = compare(bench, without);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(bench.output_names(), (Names{"compare.json", "prompts.txt", "report.html"}));
  const Json variant = compare_json(bench)["variants"][0];
  for (const char* key : {"psnr", "ssim", "scenes", "share_of_dense_work"}) EXPECT_EQ(variant[key], with[key]) << key;
  EXPECT_FALSE(variant["pictures"][0].contains("file"));
  EXPECT_FALSE(variant["pictures"][0].contains("side_by_side"));
  EXPECT_EQ(read_text(bench.output() / "report.html").find("<img"), std::string::npos);
}

TEST(Compare, NamesOfVariantsAreUniqueFolders) {
  const Workbench bench;
  const std::string off = "attn: {is_enabled: false}\nmlp: {is_enabled: false}\n";
  for (const char* name : {"demo.yml", "dense.yml", "a b.yml", ".yml"}) write_text(bench.folder() / name, off);
  const ProgramResult result =
      compare(bench, {"-p", "x", "--quiet", "--sparsity", "demo", "--sparsity", "{tmp}/demo.yml", "--sparsity",
                      "{tmp}/dense.yml", "--sparsity", "{tmp}/a b.yml", "--sparsity", "{tmp}/.yml"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  Names names;
  const Json report = compare_json(bench);
  for (const Json& variant : report["variants"]) names.push_back(variant["name"]);
  EXPECT_EQ(names, (Names{"demo", "demo-2", "dense-2", "a_b", "sparse.yml"}));
  for (const std::string& name : names) EXPECT_TRUE(fs::exists(bench.output() / name / "000.png")) << name;
}

TEST(Compare, WithoutRecordsTheRestStays) {
  const Workbench bench;
  const ProgramResult result = compare(bench, {"-p", "x", "--sparsity", "demo", "--no-record", "--quiet"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json report = compare_json(bench);
  EXPECT_EQ(report["recorded"], false);
  EXPECT_TRUE(report["variants"][0]["share_of_dense_work"].is_null());
  EXPECT_TRUE(report["variants"][0]["steps"].empty());
  expect_contains(read_text(bench.output() / "report.html"), "nothing was recorded");
}

TEST(Compare, AnEarlierRunsReportsDoNotOutliveItsPictures) {
  const Workbench bench;
  write_text(bench.output() / "report.html", "old");
  fs::create_directory(bench.output() / "dense");
  write_text(bench.output() / "dense/001.png", "old");
  ProgramOptions options;
  options.signals = {{"picture 1/", SIGINT}};
  // Far more work than this test would wait for.
  std::string prompts;
  for (int i = 0; i < 2000; ++i) prompts += "a cat\n";
  write_text(bench.folder() / "prompts.txt", prompts);
  const ProgramResult result =
      run_chipmunk(bench.expand(compare_with({"--prompts", "{tmp}/prompts.txt", "--sparsity", "demo"})), options);
  EXPECT_FALSE(result.timed_out);
  EXPECT_EQ(result.exit_code, 130) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(bench.output_names(), (Names{"demo", "dense", "prompts.txt", "side_by_side"}));
  for (const auto& entry : fs::recursive_directory_iterator(bench.output())) {
    if (entry.path().extension() != ".png" || entry.path().filename() == "001.png") continue;
    EXPECT_NO_THROW(read_png(entry.path())) << entry.path();
  }
}

TEST(Compare, PicturesThatAreNotComparedAreSaid) {
  const Workbench bench;
  fs::create_directory(bench.output() / "demo");
  write_text(bench.output() / "demo/001.png", "old");
  const ProgramResult result = compare(bench, {"-p", "x", "--sparsity", "demo", "--quiet"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  expect_contains(result.err, "demo holds more pictures");
}

}  // namespace
}  // namespace chipmunk::testing
