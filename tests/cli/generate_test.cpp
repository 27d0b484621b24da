#include <gtest/gtest.h>

#include <csignal>
#include <iterator>
#include <sstream>

#include "bad_input.h"
#include "io/png.h"

namespace chipmunk::testing {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

ProgramResult generate(const Workbench& bench, const std::vector<Change>& changes, const Names& more = {},
                       const ProgramOptions& options = {}) {
  return run_chipmunk(bench.expand(generate_with(changes, more)), options);
}

/// As generate(), with progress.
ProgramResult generate_loudly(const Workbench& bench, const std::vector<Change>& changes,
                              const ProgramOptions& options = {}) {
  Names arguments = generate_with(changes);
  std::erase(arguments, "--quiet");
  return run_chipmunk(bench.expand(arguments), options);
}

Names lines_of(const std::string& text) {
  Names lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

Names words(const std::string& text) {
  std::istringstream stream(text);
  return {std::istream_iterator<std::string>(stream), {}};
}

size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

std::string parameters_of(const fs::path& path) {
  const PngImage image = read_png(path);
  for (const PngText& text : image.texts) {
    if (text.key == kPngParametersKey) return text.value;
  }
  return {};
}

TEST(Generate, WritesAPictureAndSaysWhere) {
  const Workbench bench;
  const ProgramResult result = generate(bench, {{"--width", "48"}, {"--height", "32"}});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, (bench.output() / "picture.png").string() + "\n");
  EXPECT_EQ(result.err, "");
  EXPECT_EQ(bench.output_names(), Names{"picture.png"});
  const PngImage image = read_png(bench.output() / "picture.png");
  EXPECT_EQ(image.width, 48);
  EXPECT_EQ(image.height, 32);
}

TEST(Generate, SameSeedGivesTheSameBytes) {
  const Workbench bench;
  const auto picture = [&bench](const std::string& name, const std::string& seed) {
    const ProgramResult result = generate(bench, {{"--seed", seed}, {"--steps", "2"}, {"--output", "{out}/" + name}});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return read_text(bench.output() / name);
  };
  const std::string first = picture("a.png", "7");
  EXPECT_TRUE(picture("b.png", "7") == first);
  picture("c.png", "8");
  EXPECT_NE(read_png(bench.output() / "c.png").pixels, read_png(bench.output() / "a.png").pixels);
}

TEST(Generate, OffloadChangesNoByte) {
  const Workbench bench;
  std::vector<std::string> pictures;
  for (const std::string mode : {"none", "text", "blocks"}) {
    const ProgramResult result =
        generate(bench, {{"--offload", mode}, {"--steps", "2"}, {"--output", "{out}/" + mode + ".png"}});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    pictures.push_back(read_text(bench.output() / (mode + ".png")));
  }
  EXPECT_TRUE(pictures[1] == pictures[0]);
  EXPECT_TRUE(pictures[2] == pictures[0]);
}

TEST(Generate, PictureCarriesPromptAndSettings) {
  const Workbench bench;
  const ProgramResult result = generate(bench, {{"--prompt", "a café, with \"quotes\""},
                                                {"--negative-prompt", "rain"},
                                                {"--true-cfg-scale", "2.5"},
                                                {"--guidance", "3.1"},
                                                {"--steps", "2"},
                                                {"--seed", "42"}});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(parameters_of(bench.output() / "picture.png"),
            "a café, with \"quotes\"\nNegative prompt: rain\n"
            "Steps: 2, Sampler: Euler, CFG scale: 2.5, Guidance: 3.1, Seed: 42, Size: 32x32, Model: model, "
            "Version: chipmunk " CHIPMUNK_VERSION);
}

TEST(Generate, JsonDescribesTheRun) {
  const Workbench bench;
  const ProgramResult result = generate(bench, {{"--batch-count", "2"}, {"--seed", "5"}}, {"--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json report = Json::parse(result.out);
  EXPECT_EQ(report["architecture"], "FluxPipeline");
  EXPECT_EQ(report["device"], "cpu");
  EXPECT_GT(report["timings"]["total_ms"].get<double>(), 0.0);
  // On the CPU weights stay in their files.
  EXPECT_EQ(report["timings"]["upload_ms"], 0.0);
  EXPECT_EQ(report["upload_bytes"], 0);
  EXPECT_GT(report["peak_memory_bytes"].get<int64_t>(), 0);
  EXPECT_GT(report["peak_resident_bytes"].get<int64_t>(), 0);
  ASSERT_EQ(report["images"].size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    const Json& image = report["images"][i];
    EXPECT_TRUE(fs::exists(image["path"].get<std::string>()));
    EXPECT_EQ(image["prompt"], "a cat");
    EXPECT_EQ(image["seed"], 5 + i);
    EXPECT_EQ(image["width"], 32);
    EXPECT_EQ(image["height"], 32);
    EXPECT_EQ(image["steps"], 1);
    EXPECT_EQ(image["guidance"], 3.5);
    EXPECT_GT(image["timings"]["denoise_ms"].get<double>(), 0.0);
    EXPECT_GT(image["peak_memory_bytes"].get<int64_t>(), 0);
  }
}

TEST(Generate, SparsityIsNamedInPictureAndJson) {
  const Workbench bench;
  write_text(bench.folder() / "mine.yml", "mlp:\n  is_enabled: false\nshould_profile: true\n");
  const std::string file = (bench.folder() / "mine.yml").string();
  for (const std::string& sparsity : {std::string("demo"), file}) {
    const ProgramResult result = generate(bench, {{"--sparsity", sparsity}, {"--steps", "3"}}, {"--json"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(Json::parse(result.out)["images"][0]["sparsity"], sparsity);
    const std::string name = fs::path(sparsity).filename().string();
    EXPECT_NE(parameters_of(bench.output() / "picture.png").find(", Sparsity: " + name + ", "), std::string::npos);
    // A key without an effect is said once.
    EXPECT_EQ(count_of(result.err, "should_profile"), sparsity == file ? 1u : 0u) << result.err;
  }
  const ProgramResult dense = generate(bench, {}, {"--json"});
  EXPECT_TRUE(Json::parse(dense.out)["images"][0]["sparsity"].is_null());
}

TEST(Generate, Fp8IsAnotherPictureAndNamedInIt) {
  const Workbench bench;
  const std::string file = (bench.output() / "picture.png").string();
  const ProgramResult plain = generate(bench, {}, {"--json"});
  ASSERT_EQ(plain.exit_code, 0) << plain.err;
  EXPECT_EQ(Json::parse(plain.out)["fp8"], false);
  EXPECT_EQ(parameters_of(file).find("Linears"), std::string::npos);
  const std::vector<uint8_t> pixels = read_png(file).pixels;
  const ProgramResult fp8 = generate(bench, {}, {"--json", "--fp8"});
  ASSERT_EQ(fp8.exit_code, 0) << fp8.err;
  EXPECT_EQ(Json::parse(fp8.out)["fp8"], true);
  EXPECT_NE(parameters_of(file).find(", Linears: fp8, "), std::string::npos);
  EXPECT_NE(read_png(file).pixels, pixels);
}

TEST(Generate, BatchGivesDifferentNumberedPictures) {
  const Workbench bench;
  const ProgramResult result = generate(bench, {{"--batch-count", "2"}, {"--seed", "5"}});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(bench.output_names(), (Names{"picture_000.png", "picture_001.png"}));
  EXPECT_EQ(lines_of(result.out),
            (Names{(bench.output() / "picture_000.png").string(), (bench.output() / "picture_001.png").string()}));
  EXPECT_NE(read_png(bench.output() / "picture_000.png").pixels, read_png(bench.output() / "picture_001.png").pixels);
  EXPECT_NE(parameters_of(bench.output() / "picture_001.png").find("Seed: 6"), std::string::npos);
}

TEST(Generate, ManyPromptsFromAFile) {
  const Workbench bench;
  // A byte order mark and carriage returns, as some editors write them.
  write_text(bench.folder() / "prompts.txt", "\xEF\xBB\xBFone\r\n\r\n# a comment\r\n  two words \r\nthree");
  const ProgramResult result =
      run_chipmunk(bench.expand({"generate", "-m", "{model}", "--prompts", "{tmp}/prompts.txt", "-W", "32", "-H", "32",
                                 "--steps", "1", "-s", "3", "--device", "cpu", "--threads", "1", "-o", "{out}"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  ASSERT_EQ(bench.output_names(), (Names{"image_000.png", "image_001.png", "image_002.png"}));
  EXPECT_TRUE(parameters_of(bench.output() / "image_000.png").starts_with("one\nSteps"));
  EXPECT_TRUE(parameters_of(bench.output() / "image_001.png").starts_with("  two words \nSteps"));
  EXPECT_TRUE(parameters_of(bench.output() / "image_002.png").starts_with("three\nSteps"));
  EXPECT_EQ(count_of(result.err, "loading"), 1u);
  EXPECT_NE(result.err.find("prompt 2/3, denoising"), std::string::npos) << result.err;
  // The second prompt of a run is what it would be alone.
  ASSERT_EQ(generate(bench, {{"--prompt", "three"}, {"--seed", "3"}}).exit_code, 0);
  EXPECT_TRUE(read_png(bench.output() / "picture.png").pixels == read_png(bench.output() / "image_002.png").pixels);
}

TEST(Generate, NamePatterns) {
  const Workbench bench;
  const auto names_for = [&bench](const std::string& output, const std::string& count) {
    const ProgramResult result = generate(bench, {{"--output", output}, {"--batch-count", count}});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const Names names = bench.output_names();
    for (const std::string& name : names) fs::remove(bench.output() / name);
    return names;
  };
  EXPECT_EQ(names_for("{out}/p%d.png", "2"), (Names{"p0.png", "p1.png"}));
  EXPECT_EQ(names_for("{out}/%02d-p.png", "2"), (Names{"00-p.png", "01-p.png"}));
  EXPECT_EQ(names_for("{out}/p%05d.png", "1"), (Names{"p00000.png"}));
  EXPECT_EQ(names_for("{out}/100%.PNG", "1"), (Names{"100%.PNG"}));
  EXPECT_EQ(names_for("{out}/", "1"), (Names{"image_000.png"}));
}

TEST(Generate, DefaultNameIsInTheWorkingFolder) {
  const Workbench bench;
  ProgramOptions options;
  options.working_folder = bench.output().string();
  const ProgramResult result = run_chipmunk(
      bench.expand({"generate", "-m", "{model}", "-p", "x", "-W", "32", "-H", "32", "--steps", "1"}), options);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(bench.output_names(), Names{"output.png"});
  EXPECT_EQ(result.out, "output.png\n");
}

TEST(Generate, DrawnSeedIsPrintedAndCanBeUsedAgain) {
  const Workbench bench;
  const ProgramResult drawn = generate_loudly(bench, {{"--seed", "-1"}});
  ASSERT_EQ(drawn.exit_code, 0) << drawn.err;
  const std::string label = "seed: ";
  const size_t at = drawn.err.find(label);
  ASSERT_NE(at, std::string::npos) << drawn.err;
  const std::string seed = std::to_string(std::stoll(drawn.err.substr(at + label.size())));
  EXPECT_NE(parameters_of(bench.output() / "picture.png").find("Seed: " + seed + ","), std::string::npos);
  ASSERT_EQ(generate(bench, {{"--seed", seed}, {"--output", "{out}/again.png"}}).exit_code, 0);
  EXPECT_TRUE(read_text(bench.output() / "again.png") == read_text(bench.output() / "picture.png"));
}

TEST(Generate, EmptyPromptWorks) {
  const Workbench bench;
  const ProgramResult result = generate(bench, {{"--prompt", ""}});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(parameters_of(bench.output() / "picture.png").starts_with("\nSteps"));
}

TEST(Generate, LongPromptIsTruncatedWithANotice) {
  const Workbench bench;
  std::string prompt;
  for (int i = 0; i < 10'000; ++i) prompt += "word" + std::to_string(i % 100) + " ";
  const ProgramResult result = generate(bench, {{"--prompt", prompt}});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(bench.output_names(), Names{"picture.png"});
  const Names lines = lines_of(result.err);
  EXPECT_EQ(lines.size(), 2u) << result.err;  // one for each text encoder
  for (const std::string& line : lines) {
    EXPECT_TRUE(line.starts_with("chipmunk: notice: prompt truncated")) << line;
  }
}

TEST(Generate, NegativePromptNeedsTrueGuidance) {
  const Workbench bench;
  const ProgramResult without = generate(bench, {{"--negative-prompt", "rain"}});
  ASSERT_EQ(without.exit_code, 0) << without.err;
  EXPECT_NE(without.err.find("--negative-prompt has no effect"), std::string::npos) << without.err;
  ASSERT_EQ(generate(bench, {{"--output", "{out}/plain.png"}}).exit_code, 0);
  EXPECT_TRUE(read_text(bench.output() / "picture.png") == read_text(bench.output() / "plain.png"));
  const ProgramResult with =
      generate(bench, {{"--negative-prompt", "rain"}, {"--true-cfg-scale", "3"}, {"--output", "{out}/guided.png"}});
  ASSERT_EQ(with.exit_code, 0) << with.err;
  EXPECT_EQ(with.err, "");
  EXPECT_NE(read_png(bench.output() / "guided.png").pixels, read_png(bench.output() / "plain.png").pixels);
}

TEST(Generate, GuidanceWithoutEffectIsSaid) {
  const Workbench bench;
  const std::string schnell = CHIPMUNK_TEST_DATA "/golden/flux-schnell-tiny/model";
  const ProgramResult result = generate(bench, {{"--model", schnell}, {"--guidance", "2"}});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("--guidance has no effect"), std::string::npos) << result.err;
  EXPECT_EQ(parameters_of(bench.output() / "picture.png").find("Guidance"), std::string::npos);
}

TEST(Generate, PartsInPlaceOfAModelFolder) {
  const Workbench bench;
  ASSERT_EQ(generate(bench, {{"--prompt", "cat"}}).exit_code, 0);
  const ProgramResult result = run_chipmunk(bench.expand(
      words("generate --diffusion-model {model}/transformer --vae {model}/vae/diffusion_pytorch_model.safetensors "
            "--clip_l {model}/text_encoder/model.safetensors --t5xxl {model}/text_encoder_2 "
            "--clip-tokenizer {model}/tokenizer --t5-tokenizer {model}/tokenizer_2 "
            "-p cat -W 32 -H 32 --steps 1 -s 1 --threads 1 --device cpu -o {out}/parts.png")));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(read_png(bench.output() / "parts.png").pixels == read_png(bench.output() / "picture.png").pixels);
}

TEST(Generate, OriginalSingleFilesWithAModelConfig) {
  const Workbench bench;
  ASSERT_EQ(generate(bench, {{"--prompt", "cat"}}).exit_code, 0);
  // Beside the weights lies no config.json, as in downloads of single files.
  fs::copy_file(bench.model() / "text_encoder/model.safetensors", bench.folder() / "clip_l.safetensors");
  fs::copy_file(bench.model() / "text_encoder_2/model.safetensors", bench.folder() / "t5xxl.safetensors");
  const Json config = {{"transformer", {{"axes_dims_rope", {8, 12, 12}}}},
                       {"vae", {{"norm_num_groups", 4}}},
                       {"text_encoder", {{"num_attention_heads", 4}}}};
  write_text(bench.folder() / "overrides.json", config.dump());
  const ProgramResult result = run_chipmunk(bench.expand(
      words("generate --diffusion-model {data}/golden/flux-original/model/flux1-tiny.safetensors "
            "--vae {data}/golden/flux-original/model/ae.safetensors --clip_l {tmp}/clip_l.safetensors "
            "--t5xxl {tmp}/t5xxl.safetensors --clip-tokenizer {model}/tokenizer --t5-tokenizer {model}/tokenizer_2 "
            "--model-config {tmp}/overrides.json "
            "-p cat -W 32 -H 32 --steps 1 -s 1 --threads 1 --device cpu -o {out}/single.png")));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(read_png(bench.output() / "single.png").pixels == read_png(bench.output() / "picture.png").pixels);
  EXPECT_NE(parameters_of(bench.output() / "single.png").find("Model: flux1-tiny,"), std::string::npos);
}

TEST(Generate, PreviewsReplaceOneFile) {
  for (const std::string mode : {"proj", "vae"}) {
    const Workbench bench;
    const ProgramResult result = generate(
        bench,
        {{"--preview", mode}, {"--preview-interval", "2"}, {"--preview-path", "{out}/preview.png"}, {"--steps", "4"}});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(bench.output_names(), (Names{"picture.png", "preview.png"}));
    const PngImage preview = read_png(bench.output() / "preview.png");
    EXPECT_EQ(preview.width, mode == "vae" ? 32 : 4);
    EXPECT_EQ(result.out, (bench.output() / "picture.png").string() + "\n");
    // Previews look on; they do not change the picture.
    ASSERT_EQ(generate(bench, {{"--steps", "4"}, {"--output", "{out}/plain.png"}}).exit_code, 0);
    EXPECT_TRUE(read_text(bench.output() / "plain.png") == read_text(bench.output() / "picture.png"));
    // After the last step, the prediction of the clean picture is the picture.
    if (mode == "vae") {
      EXPECT_TRUE(preview.pixels == read_png(bench.output() / "picture.png").pixels);
    }
  }
}

TEST(Generate, TilingFlags) {
  const Workbench bench;
  EXPECT_EQ(generate(bench, {}, {"--vae-tiling"}).exit_code, 0);
  EXPECT_EQ(generate(bench, {}, {"--no-vae-tiling"}).exit_code, 0);
}

TEST(Progress, PlainLinesOutsideOfATerminal) {
  const Workbench bench;
  const ProgramResult result = generate_loudly(bench, {{"--steps", "40"}});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* stage : {"loading", "text encoding\n", "denoising\n", "decoding\n", "done in "}) {
    EXPECT_NE(result.err.find(stage), std::string::npos) << stage << " in: " << result.err;
  }
  EXPECT_EQ(count_of(result.err, "denoising: step "), 10u) << result.err;
  EXPECT_NE(result.err.find("denoising: step 40/40, "), std::string::npos) << result.err;
  EXPECT_NE(result.err.find(" s/step, "), std::string::npos);
  EXPECT_NE(result.err.find(" left\n"), std::string::npos);
  EXPECT_EQ(result.err.find('\r'), std::string::npos);
  EXPECT_EQ(result.out, (bench.output() / "picture.png").string() + "\n");
}

TEST(Progress, BarOnATerminal) {
  const Workbench bench;
  ProgramOptions options;
  options.terminal = true;
  const ProgramResult result = generate_loudly(bench, {{"--steps", "3"}}, options);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("\r[########................] step 1/3, "), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("\r[########################] step 3/3, "), std::string::npos) << result.err;
}

class Interrupt : public ::testing::TestWithParam<int> {};

TEST_P(Interrupt, StopsAtTheNextStepAndLeavesNothing) {
  const Workbench bench;
  write_text(bench.output() / "picture.png", "what was there before");
  ProgramOptions options;
  options.signals = {{"denoising\n", GetParam()}};
  // Far more work than this test would wait for.
  const ProgramResult result =
      generate_loudly(bench, {{"--steps", "1000"}, {"--width", "512"}, {"--height", "512"}}, options);
  EXPECT_FALSE(result.timed_out);
  EXPECT_EQ(result.exit_code, 130) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_NE(result.err.find("stopping after this step"), std::string::npos) << result.err;
  EXPECT_EQ(bench.output_names(), Names{"picture.png"});
  EXPECT_EQ(read_text(bench.output() / "picture.png"), "what was there before");
}

INSTANTIATE_TEST_SUITE_P(Signals, Interrupt, ::testing::Values(SIGINT, SIGTERM));

TEST(InterruptTwice, EndsAtOnce) {
  const Workbench bench;
  ProgramOptions options;
  options.signals = {{"denoising\n", SIGINT}, {"ends at once", SIGINT}};
  // One step takes seconds.
  const ProgramResult result =
      generate_loudly(bench, {{"--steps", "1000"}, {"--width", "2048"}, {"--height", "2048"}}, options);
  EXPECT_EQ(result.signal, SIGINT) << result.exit_code << result.err;
  EXPECT_EQ(bench.output_names(), Names());
}

}  // namespace
}  // namespace chipmunk::testing
