#include "sparse/config.h"

#include <algorithm>
#include <cmath>

#include "io/config.h"
#include "sparse/config_fields.h"
#include "sparse_test_util.h"

namespace chipmunk {
namespace {

using test::expect_error;
using test::golden_method;
using test::read_file;

SparsityConfig parse(const std::string& text) { return SparsityConfig::parse(text, "test.yml"); }

/// The least that a file must say.
const std::string kNoMlp = "mlp: {is_enabled: false}\n";

const std::vector<int> kSkips = {7,  11, 13, 14, 15, 17, 18, 19, 21, 22, 23, 25, 26,
                                 27, 29, 31, 33, 34, 35, 37, 38, 39, 41, 42, 43};

TEST(SparsityConfig, DefaultsAreTheOriginals) {
  // JSON is YAML: the file of the defaults, read as a config, must change nothing; its one null is mlp.top_keys.
  std::string text = read_file(golden_method("configs/defaults.json"));
  const std::string null_top_keys = "\"top_keys\": null";
  const size_t at = text.find(null_top_keys);
  ASSERT_NE(at, std::string::npos);
  text.replace(at, null_top_keys.size(), "\"top_keys\": 0.3");
  SparsityConfig expected;
  expected.mlp.top_keys = 0.3;
  EXPECT_EQ(parse(text), expected);

  // The above would pass too for keys that the table lacks or reads into the wrong member: the values once more.
  const JsonConfig json = JsonConfig::load(golden_method("configs/defaults.json"));
  const JsonConfig attn = json.object("attn"), mlp = json.object("mlp"), caching = json.object("step_caching");
  EXPECT_EQ(expected.attn.top_keys, attn.number("top_keys"));
  EXPECT_EQ(expected.attn.random_keys, attn.number("random_keys"));
  EXPECT_EQ(expected.attn.local_voxels, attn.integer("local_voxels"));
  EXPECT_EQ(expected.attn.full_step_every, attn.integer("full_step_every"));
  EXPECT_EQ(expected.attn.first_n_dense_layers, attn.integer("first_n_dense_layers"));
  EXPECT_EQ(expected.mlp.random_keys, mlp.number("random_keys"));
  EXPECT_EQ(expected.mlp.block_mask_cache, mlp.integer("block_mask_cache"));
  EXPECT_EQ(expected.patchify.chunk_size_1, json.object("patchify").integer("chunk_size_1"));
  EXPECT_EQ(expected.patchify.chunk_size_2, json.object("patchify").integer("chunk_size_2"));
  const std::vector<int64_t> skips = caching.integers("skip_step_schedule");
  EXPECT_TRUE(std::equal(skips.begin(), skips.end(), kSkips.begin(), kSkips.end()));
  EXPECT_EQ(expected.step_caching.skip_step_schedule, kSkips);
}

TEST(SparsityConfig, EveryKeyOfTheDefaultsIsInTheTable) {
  const JsonConfig json = JsonConfig::load(golden_method("configs/defaults.json"));
  size_t known = 0;
  for (const ConfigField& field : config_fields()) {
    const std::string section(field.section), key(field.key);
    known += section.empty() ? json.has(key) : json.object(section).has(key);
  }
  size_t expected = 0;
  for (const std::string& key : json.keys()) expected += json.is_object(key) ? json.object(key).keys().size() : 1;
  EXPECT_EQ(known, expected);
}

TEST(SparsityConfig, ReadsTheOriginalsFluxFile) {
  std::vector<std::string> notices;
  const SparsityConfig config = SparsityConfig::load(golden_method("configs/flux.yml"), &notices);
  EXPECT_EQ(config, SparsityConfig::preset("flux"));
  EXPECT_EQ(config.attn.top_keys, 0.165);
  EXPECT_EQ(config.mlp.top_keys, 0.3);
  EXPECT_FALSE(config.attn.recompute_mask);
  EXPECT_FALSE(config.attn.should_compress_indices);
  EXPECT_FALSE(config.step_caching.is_enabled) << "absent";
  EXPECT_TRUE(config.patchify.is_enabled);
  ASSERT_EQ(notices.size(), 3u);
  EXPECT_NE(notices[0].find("offloading.mlp.sparse_act_T"), std::string::npos);
  EXPECT_NE(notices[1].find("mlp.is_fp8: accepted, without effect: --fp8 "), std::string::npos);
  EXPECT_NE(notices[2].find("attn.counts_multiple_of"), std::string::npos);
  EXPECT_NE(notices[2].find("mlp.bm"), std::string::npos);
}

TEST(SparsityConfig, ReadsTheOriginalsVideoFiles) {
  SparsityConfig hunyuan = SparsityConfig::load(golden_method("configs/hunyuan.yml"));
  EXPECT_EQ(hunyuan.attn.full_step_schedule, (std::vector<int>{0, 1, 10, 40}));
  EXPECT_EQ(hunyuan.step_caching.skip_step_schedule, kSkips);
  EXPECT_TRUE(hunyuan.step_caching.is_enabled);
  EXPECT_FALSE(hunyuan.mlp.is_enabled);
  EXPECT_EQ(hunyuan.patchify.chunk_size_1, 8) << "merged deeply";
  EXPECT_FALSE(hunyuan.offloading.global_disable_offloading);
  hunyuan.offloading = SparsityConfig::Offloading::off();
  EXPECT_EQ(hunyuan, SparsityConfig::preset("hunyuan-caching"));

  const SparsityConfig wan = SparsityConfig::load(golden_method("configs/wan.yml"));
  EXPECT_EQ(wan.num_model_invocations_per_inference_step, 2);
  EXPECT_EQ(wan.attn.local_voxels, 5);
  EXPECT_EQ(wan.attn.top_keys, 0.1);
  EXPECT_FALSE(wan.attn.full_step_schedule.has_value());
  EXPECT_FALSE(wan.patchify.is_enabled);
  EXPECT_TRUE(wan.offloading.attn_counts);
}

TEST(SparsityConfig, AbsentSectionsAreOffExceptAttnAndMlp) {
  const SparsityConfig config = parse("mlp: {top_keys: 0.25}\n");
  EXPECT_EQ(config.attn, SparsityConfig::Attn{});
  EXPECT_TRUE(config.mlp.is_enabled);
  EXPECT_EQ(config.mlp.random_keys, 0.05);
  EXPECT_FALSE(config.patchify.is_enabled);
  EXPECT_FALSE(config.step_caching.is_enabled);
  EXPECT_EQ(config.offloading, SparsityConfig::Offloading::off());
  EXPECT_TRUE(parse(kNoMlp + "patchify: {chunk_size_2: 2}").patchify.is_enabled) << "present, so on by default";
  EXPECT_TRUE(parse(kNoMlp + "step_caching: {mode: list}").step_caching.is_enabled);
}

TEST(SparsityConfig, ListsMayBeSetsInAnyOrder) {
  const std::vector<int> expected = {0, 1, 5};
  for (const char* list :
       {"[5, 0, 1]", "!!set {5, 0, 1}", "\n    - 5\n    - 1\n    - 0\n", "!!set\n    ? 5\n    ? 0\n    ? 1\n"}) {
    const SparsityConfig config = parse(kNoMlp + "attn:\n  full_step_schedule: " + list);
    EXPECT_EQ(config.attn.full_step_schedule, expected) << list;
  }
  EXPECT_FALSE(parse(kNoMlp + "attn: {full_step_schedule: null}").attn.full_step_schedule.has_value());
  EXPECT_TRUE(parse(kNoMlp + "step_caching: {skip_step_schedule: []}").step_caching.skip_step_schedule.empty());
}

TEST(SparsityConfig, ReadsOurOwnKeys) {
  std::vector<std::string> notices;
  const SparsityConfig config = SparsityConfig::parse(
      "mlp: {is_enabled: false, include_text: no}\nattn: {combine: merge, include_text_columns: yes}\n"
      "step_caching: {mode: adaptive, threshold: 0.05}",
      "test.yml", &notices);
  EXPECT_EQ(config.attn.combine, AttentionCombine::kMerge);
  EXPECT_TRUE(config.attn.include_text_columns);
  EXPECT_FALSE(config.mlp.include_text);
  EXPECT_TRUE(SparsityConfig::Mlp{}.include_text);
  EXPECT_EQ(config.step_caching.mode, StepCachingMode::kAdaptive);
  EXPECT_EQ(config.step_caching.threshold, 0.05);
  EXPECT_TRUE(notices.empty());
}

TEST(SparsityConfig, NoticesNameEachIdleKeyOnce) {
  std::vector<std::string> notices;
  SparsityConfig::parse(kNoMlp +
                            "attn: {mbm: 192, counts_multiple_of: 8}\nsteps: 50\nworld_size: 1\n"
                            "step_caching: {threshold: 1}",
                        "test.yml", &notices);
  ASSERT_EQ(notices.size(), 3u);
  EXPECT_NE(notices[0].find("test.yml: attn.counts_multiple_of, attn.mbm: accepted, without effect"),
            std::string::npos);
  EXPECT_NE(notices[1].find("steps, world_size"), std::string::npos);
  EXPECT_NE(notices[2].find("step_caching.threshold: without effect in mode list"), std::string::npos);
}

TEST(SparsityConfig, Presets) {
  EXPECT_EQ(SparsityConfig::preset_names(),
            (std::vector<std::string>{"flux", "flux-caching", "hunyuan", "hunyuan-caching", "demo", "demo-caching"}));
  for (const std::string& name : SparsityConfig::preset_names()) {
    const SparsityConfig config = SparsityConfig::preset(name);
    EXPECT_NO_THROW(config.validate()) << name;
    EXPECT_EQ(config.step_caching.is_enabled, name.ends_with("-caching")) << name;
    EXPECT_EQ(config.step_caching.skip_step_schedule.size(), 25u);
    EXPECT_EQ(SparsityConfig::load_or_preset(name), config);
  }
  // Chosen from docs/method.md's grid: the point both-merge-0.05.
  const SparsityConfig demo = SparsityConfig::preset("demo");
  EXPECT_EQ(demo.attn.first_n_dense_layers, 0);
  EXPECT_EQ(demo.mlp.first_n_dense_layers, 0);
  EXPECT_EQ(demo.attn.top_keys, 0.05);
  EXPECT_EQ(demo.mlp.top_keys, 0.05);
  EXPECT_EQ(demo.mlp.random_keys, 0.0);
  EXPECT_EQ(demo.attn.combine, AttentionCombine::kMerge);
  EXPECT_EQ(demo.attn.full_step_schedule, (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 15}));
  EXPECT_EQ(demo.mlp.full_step_schedule, demo.attn.full_step_schedule);
  // The method's own figures for FLUX.1-dev.
  const SparsityConfig flux = SparsityConfig::preset("flux");
  EXPECT_EQ(flux.attn.top_keys, 0.165);
  EXPECT_EQ(flux.mlp.top_keys, 0.3);
  EXPECT_EQ(flux.mlp.random_keys, 0.05);
  EXPECT_EQ(SparsityConfig::preset("hunyuan").attn.random_keys, 0.01);
  expect_error(ErrorCode::kInvalidArgument, {"fluxx", "nearest one is flux"}, [] { SparsityConfig::preset("fluxx"); });
  expect_error(ErrorCode::kInvalidArgument, {"-caching"}, [] { SparsityConfig::preset("-caching"); });
  expect_error(ErrorCode::kInvalidArgument, {"hunyuan-caching"},
               [] { SparsityConfig::load_or_preset("hunyuan_caching"); });
  expect_error(ErrorCode::kNotFound, {"missing.yml", "no such file"},
               [] { SparsityConfig::load_or_preset("missing.yml"); });
  expect_error(ErrorCode::kIo, {"expected a file"}, [] { SparsityConfig::load(golden_method("configs")); });
}

TEST(SparsityConfig, ToYamlReadsBackAsTheSame) {
  std::vector<SparsityConfig> configs = {SparsityConfig::dense()};
  for (const std::string& name : SparsityConfig::preset_names()) configs.push_back(SparsityConfig::preset(name));
  for (const char* file : {"flux.yml", "hunyuan.yml", "wan.yml"}) {
    configs.push_back(SparsityConfig::load(golden_method(std::string("configs/") + file)));
  }
  configs.front().attn.combine = AttentionCombine::kDifference;
  configs.front().step_caching.mode = StepCachingMode::kAdaptive;
  configs.front().step_caching.threshold = 0.1 + 0.2;
  configs.front().step_caching.skip_step_schedule.clear();
  for (const SparsityConfig& config : configs) EXPECT_EQ(parse(config.to_yaml()), config) << config.to_yaml();
}

TEST(SparsityConfig, ValidateChecksConfigsMadeInCode) {
  const auto expect_invalid = [](const std::string& key, const auto& change) {
    SparsityConfig config = SparsityConfig::preset("flux");
    change(config);
    expect_error(ErrorCode::kInvalidConfig, {key}, [&] { config.validate(); });
  };
  expect_invalid("attn.top_keys", [](SparsityConfig& c) { c.attn.top_keys = std::nan(""); });
  expect_invalid("mlp.top_keys", [](SparsityConfig& c) { c.mlp.top_keys.reset(); });
  expect_invalid("mlp.random_keys", [](SparsityConfig& c) { c.mlp.random_keys = -0.1; });
  expect_invalid("attn.full_step_every", [](SparsityConfig& c) { c.attn.full_step_every = 0; });
  expect_invalid("patchify.chunk_size_2", [](SparsityConfig& c) { c.patchify.chunk_size_2 = 3; });
  expect_invalid("attn.full_step_schedule", [](SparsityConfig& c) { c.attn.full_step_schedule = {0, 2, 1}; });
  expect_invalid("attn.full_step_schedule", [](SparsityConfig& c) { c.attn.full_step_schedule = {-1, 0}; });
  expect_invalid("skip_step_schedule", [](SparsityConfig& c) { c.step_caching.skip_step_schedule = {3, 3}; });
  expect_invalid("skip_step_schedule", [](SparsityConfig& c) { c.step_caching.skip_step_schedule = {0}; });
}

TEST(SparsityConfig, ASkippedStepNeedsNoColumns) {
  const std::string text = kNoMlp + "attn: {full_step_schedule: [0, 3]}\nstep_caching: {skip_step_schedule: [1, 2]}";
  EXPECT_NO_THROW(parse(text));
  EXPECT_THROW(parse(text + "\n"
                            "num_model_invocations_per_inference_step: 0"),
               Error);
}

TEST(EditDistance, CountsEdits) {
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("top_keys", "top_keys"), 0);
  EXPECT_EQ(nearest_key("attn", "topkeys"), "attn.top_keys");
  EXPECT_EQ(nearest_key("mlp", "recompute_mas"), "attn.recompute_mask");
}

}  // namespace
}  // namespace chipmunk
