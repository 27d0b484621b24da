#include "sparse/schedule.h"

#include <map>
#include <set>

#include "io/config.h"
#include "sparse_test_util.h"

namespace chipmunk {
namespace {

using test::expect_error;
using test::falling_sigmas;
using test::golden_method;

/// A row of the fixtures' tables.
struct TableRow {
  std::string attention, mlp;
};

/// schedules.json's tables, which are lists of objects: read by their fixed form {"step": n, "attn": ..., "mlp": ...}.
std::vector<TableRow> read_table(const std::string& model) {
  const std::string text = test::read_file(golden_method("orders/schedules.json"));
  const size_t begin = text.find("\"table\"", text.find("\"" + model + "\""));
  const std::string table = text.substr(begin, text.find(']', begin) - begin);
  const auto value = [](const std::string& row, const std::string& key) {
    const size_t at = row.find("\"" + key + "\"");
    if (at == std::string::npos) return std::string();
    const size_t first = row.find('"', row.find(':', at)) + 1;
    return row.substr(first, row.find('"', first) - first);
  };
  std::vector<TableRow> rows;
  for (size_t at = table.find('{'); at != std::string::npos; at = table.find('{', at + 1)) {
    const std::string row = table.substr(at, table.find('}', at) - at);
    EXPECT_NE(row.find("\"step\": " + std::to_string(rows.size())), std::string::npos) << row;
    rows.push_back({value(row, "attn"), value(row, "mlp")});
  }
  return rows;
}

const std::map<std::string, AttentionStep> kAttentionNames = {{"full_store_lse", AttentionStep::kDense},
                                                              {"full_new_mask", AttentionStep::kRefresh},
                                                              {"full_old_mask", AttentionStep::kRecache},
                                                              {"sparse", AttentionStep::kSparse},
                                                              {"skip", AttentionStep::kSkip}};
const std::map<std::string, MlpStep> kMlpNames = {{"full", MlpStep::kFull},
                                                  {"sparse_new_indices", MlpStep::kSparseSelect},
                                                  {"sparse_reuse_indices", MlpStep::kSparseReuse}};

class GoldenSchedule : public testing::TestWithParam<const char*> {};

TEST_P(GoldenSchedule, IsExactlyTheReferences) {
  const std::string model = GetParam();
  const JsonConfig fixture = JsonConfig::load(golden_method("orders/schedules.json")).object(model);
  const SparsityConfig config = SparsityConfig::load(golden_method("configs/" + model + ".yml"));
  const int num_layers = static_cast<int>(fixture.integer("layers"));
  EXPECT_EQ(config.num_model_invocations_per_inference_step, fixture.integer("invocations_per_step"));
  const std::vector<TableRow> table = read_table(model);
  ASSERT_EQ(table.size(), static_cast<size_t>(fixture.integer("steps")));

  const DenoisingSchedule schedule =
      DenoisingSchedule::sparse(falling_sigmas(static_cast<int>(table.size())), config, num_layers);
  EXPECT_TRUE(schedule.notices().empty());
  const int dense_layers = static_cast<int>(fixture.integer("first_dense_layers"));
  for (size_t i = 0; i < table.size(); ++i) {
    const int step = static_cast<int>(i);
    const AttentionStep attention = kAttentionNames.at(table[i].attention);
    EXPECT_EQ(schedule.steps()[i].attention, attention) << "step " << i;
    const bool skipped = attention == AttentionStep::kSkip;
    if (!table[i].mlp.empty()) {
      EXPECT_EQ(schedule.steps()[i].mlp, kMlpNames.at(table[i].mlp)) << "step " << i;
    }
    for (int layer = 0; layer < num_layers; ++layer) {
      const bool dense = layer < dense_layers && !skipped;
      EXPECT_EQ(schedule.attention_kind(step, layer), dense ? AttentionStep::kDense : attention);
      EXPECT_EQ(schedule.mlp_kind(step, layer), dense ? MlpStep::kFull : schedule.steps()[i].mlp);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Method, GoldenSchedule, testing::Values("flux", "hunyuan", "wan"),
                         [](const auto& model) { return std::string(model.param); });

/// "dense refresh sparse ..." by first letters, recache as R.
std::string attention_letters(const DenoisingSchedule& schedule) {
  std::string letters;
  for (const Step& step : schedule.steps()) {
    letters += step.attention == AttentionStep::kSkip      ? '-'
               : step.attention == AttentionStep::kRecache ? 'c'
                                                           : *to_string(step.attention);
  }
  return letters;
}

/// full, select, reuse by first letters.
std::string mlp_letters(const DenoisingSchedule& schedule) {
  std::string letters;
  for (const Step& step : schedule.steps()) letters += step.mlp == MlpStep::kSkip ? '-' : *to_string(step.mlp);
  return letters;
}

SparsityConfig flux_with_skips(const std::vector<int>& skips) {
  SparsityConfig config = SparsityConfig::preset("flux");
  config.step_caching.is_enabled = true;
  config.step_caching.skip_step_schedule = skips;
  return config;
}

DenoisingSchedule make(const SparsityConfig& config, int steps = 13) {
  return DenoisingSchedule::sparse(falling_sigmas(steps), config, 8);
}

TEST(Schedule, KeepsTheSigmas) {
  const std::vector<float> sigmas = {1.0f, 0.5f, 0.0f};
  for (const DenoisingSchedule& schedule : {DenoisingSchedule::dense(sigmas), make(SparsityConfig::dense(), 2)}) {
    ASSERT_EQ(schedule.steps().size(), 2u);
    EXPECT_EQ(schedule.steps()[1].index, 1);
    EXPECT_EQ(schedule.steps()[1].sigma, 0.5f);
    EXPECT_EQ(schedule.steps()[1].sigma_next, 0.0f);
  }
}

TEST(Schedule, OffMeansDense) {
  const DenoisingSchedule schedule = make(SparsityConfig::dense());
  EXPECT_EQ(attention_letters(schedule), std::string(13, 'd'));
  EXPECT_EQ(mlp_letters(schedule), std::string(13, 'f'));
  for (const Step& step : schedule.steps()) EXPECT_FALSE(step.may_skip);
}

TEST(Schedule, AttentionAndMlpAlone) {
  SparsityConfig config = SparsityConfig::preset("flux");
  config.mlp.is_enabled = false;
  EXPECT_EQ(attention_letters(make(config)),
            "drssssssssc"
            "ss");
  EXPECT_EQ(mlp_letters(make(config)), std::string(13, 'f'));
  config.mlp.is_enabled = true;
  config.attn.is_enabled = false;
  EXPECT_EQ(attention_letters(make(config)), std::string(13, 'd'));
  EXPECT_EQ(mlp_letters(make(config)), "fsssssssssfrs");
}

TEST(Schedule, KeepsCachesOnlyWhereASparseStepReadsThem) {
  SparsityConfig config = SparsityConfig::preset("flux");
  config.attn.full_step_schedule = std::vector<int>{0, 1, 2, 3, 6, 7, 9};
  config.attn.recompute_mask = true;
  EXPECT_EQ(attention_letters(make(config, 10)), "dddrssdrsd");
  // Without recompute_mask the first choice of columns is the one that lasts.
  config.attn.recompute_mask = false;
  EXPECT_EQ(attention_letters(make(config, 10)), "drdcssdcsd");
  // Between two full steps a skip reads nothing.
  config.step_caching.is_enabled = true;
  config.step_caching.skip_step_schedule = {4, 5};
  EXPECT_EQ(attention_letters(make(config, 10)).substr(0, 7), "drdd--d");
}

TEST(Schedule, MlpFullStepsFromAList) {
  SparsityConfig config = SparsityConfig::preset("flux");
  config.mlp.full_step_schedule = std::vector<int>{0, 1, 2, 7};
  const DenoisingSchedule schedule = make(config, 9);
  for (const Step& step : schedule.steps()) {
    const bool full = step.index <= 2 || step.index == 7;
    EXPECT_EQ(step.mlp, full ? MlpStep::kFull : MlpStep::kSparseSelect) << step.index;
  }
}

TEST(Schedule, IntervalsOfOneAreFullEverywhere) {
  SparsityConfig config = SparsityConfig::preset("flux");
  config.attn.full_step_every = config.mlp.full_step_every = 1;
  EXPECT_EQ(attention_letters(make(config, 4)), "drdd");
  EXPECT_EQ(mlp_letters(make(config, 4)), "ffff");
  config.attn.recompute_mask = true;
  EXPECT_EQ(attention_letters(make(config, 4)), "dddd");
}

TEST(Schedule, SkipsNeverLandOnStepsThatRenewACache) {
  SparsityConfig config = flux_with_skips({1, 2, 10, 12});
  const DenoisingSchedule schedule = make(config);
  EXPECT_EQ(attention_letters(schedule),
            "dr-sssssssc"
            "s-");
  EXPECT_EQ(mlp_letters(schedule), "fs-sssssssfr-");
  ASSERT_EQ(schedule.notices().size(), 1u);
  EXPECT_NE(schedule.notices()[0].find("step 1, 10"), std::string::npos) << schedule.notices()[0];

  config.mlp.full_step_every = 12;
  EXPECT_EQ(mlp_letters(make(config)), "fs-ssssssssrf") << "a full MLP step is not skipped either";
  config.attn.is_enabled = config.mlp.is_enabled = false;
  EXPECT_EQ(attention_letters(make(config)), "d--ddddddd-d-") << "dense steps have no cache to renew";
}

TEST(Schedule, FirstColumnsMayComeLateIfTheStepsBeforeAreSkipped) {
  SparsityConfig config = flux_with_skips({1, 2});
  config.attn.full_step_schedule = std::vector<int>{0, 3, 6};
  EXPECT_EQ(attention_letters(make(config, 8)), "d--rsscs");
}

TEST(Schedule, FeaturesAreChosenBeforeTheyAreReused) {
  // Every sparse step before step 11 is skipped, so 11, a step that would reuse, must choose.
  const SparsityConfig config = flux_with_skips({2, 3, 4, 5, 6, 7, 8, 9});
  SparsityConfig without_attention = config;
  without_attention.attn.is_enabled = false;
  without_attention.step_caching.skip_step_schedule.insert(without_attention.step_caching.skip_step_schedule.begin(),
                                                           1);
  EXPECT_EQ(mlp_letters(make(config)), "fs--------frs");
  EXPECT_EQ(mlp_letters(make(without_attention, 14)), "f---------fssr");
}

TEST(Schedule, AdaptiveSkipsAreOnlyAllowedWhereNothingIsRenewed) {
  SparsityConfig config = flux_with_skips({5});
  config.step_caching.mode = StepCachingMode::kAdaptive;
  const DenoisingSchedule schedule = make(config);
  const std::set<int> never = {0, 1, 10, 12};  // full steps and the last one
  for (const Step& step : schedule.steps()) {
    EXPECT_NE(step.attention, AttentionStep::kSkip) << "the list has no effect";
    EXPECT_EQ(step.may_skip, never.count(step.index) == 0) << "step " << step.index;
  }
}

TEST(Schedule, SaysWhenEveryLayerIsDense) {
  const DenoisingSchedule schedule = DenoisingSchedule::sparse(falling_sigmas(4), SparsityConfig::preset("flux"), 2);
  EXPECT_EQ(schedule.notices().size(), 2u);
  EXPECT_EQ(schedule.attention_kind(2, 1), AttentionStep::kDense);
}

TEST(Schedule, BadArguments) {
  expect_error(ErrorCode::kInvalidArgument, {"two sigmas"}, [] { DenoisingSchedule::dense({1.0f}); });
  expect_error(ErrorCode::kInvalidArgument, {"layer"},
               [] { DenoisingSchedule::sparse(falling_sigmas(3), SparsityConfig::dense(), 0); });
  const DenoisingSchedule schedule = make(SparsityConfig::dense());
  expect_error(ErrorCode::kInvalidArgument, {"step 13"}, [&] { schedule.attention_kind(13, 0); });
  expect_error(ErrorCode::kInvalidArgument, {"layer -1"}, [&] { schedule.mlp_kind(0, -1); });
  SparsityConfig config = SparsityConfig::preset("flux");
  config.attn.full_step_schedule = {0, 10};
  expect_error(ErrorCode::kInvalidConfig, {"no columns"}, [&] { make(config); });
}

}  // namespace
}  // namespace chipmunk
