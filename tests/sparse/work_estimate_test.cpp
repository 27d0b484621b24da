#include "sparse/work_estimate.h"

#include "sparse_test_util.h"

namespace chipmunk {
namespace {

using test::expect_error;
using test::falling_sigmas;

/// FLUX.1's sizes at 1024x1024, all layers taken as alike.
TransformerShape flux_shape() { return {57, 4608, 512, 24, 128, 3072, 12288, 192, 128}; }

TEST(ColumnsKept, FluxKeepsItsTopKeysAlone) {
  const SparsityConfig config = SparsityConfig::preset("flux");
  EXPECT_NEAR(expected_columns_kept(config.attn, flux_shape()), 760.0 / 4608.0, 1e-12);
  SparsityConfig::Attn with_text = config.attn;
  with_text.include_text_columns = true;
  EXPECT_NEAR(expected_columns_kept(with_text, flux_shape()), 0.165 + 0.835 * 512 / 4608, 1e-3);
}

TEST(ColumnsKept, VideoAddsRandomAndStaticColumns) {
  TransformerShape shape = flux_shape();
  shape.tokens = 1000;
  shape.text_tokens = 100;
  const SparsityConfig::Attn attn = SparsityConfig::preset("hunyuan").attn;
  const double chosen = 0.05 + 0.95 * 0.01;
  EXPECT_NEAR(expected_columns_kept(attn, shape), chosen, 1e-12);
  const std::vector<int64_t> counts = {100, 1000};
  EXPECT_NEAR(expected_columns_kept(attn, shape, counts), (0.1 + 0.9 * chosen + 1.0) / 2.0, 1e-12);
  SparsityConfig::Attn all = attn;
  all.top_keys = 1.0;
  EXPECT_EQ(expected_columns_kept(all, shape, counts), 1.0);
}

TEST(FeaturesKept, TopAndRandom) {
  const SparsityConfig::Mlp mlp = SparsityConfig::preset("flux").mlp;
  EXPECT_NEAR(expected_features_kept(mlp, 12288), 0.3 + 0.7 * 0.05, 1e-4);
  EXPECT_EQ(expected_features_kept({}, 12288), 1.0);
}

TEST(Work, DenseIsTheUnit) {
  const SparsityConfig config = SparsityConfig::dense();
  const TransformerShape shape = flux_shape();
  const std::vector<StepEstimate> steps =
      estimate_work(DenoisingSchedule::sparse(falling_sigmas(3), config, 57), config, shape);
  ASSERT_EQ(steps.size(), 3u);
  const double n = 4608, layer = 2 * n * n * 3072 + 2 * n * 3072 * 12288;
  EXPECT_DOUBLE_EQ(steps[0].dense_work, 57 * layer);
  EXPECT_NEAR(steps[0].work / steps[0].dense_work, 1.0, 1e-12);
  EXPECT_NEAR(steps[0].attention_kept, 1.0, 1e-12);
  EXPECT_NEAR(share_of_dense_work(steps), 1.0, 1e-12);
  EXPECT_EQ(share_of_dense_work({}), 1.0);
}

TEST(Work, FluxSavesMoreThanHalf) {
  const SparsityConfig config = SparsityConfig::preset("flux");
  const std::vector<StepEstimate> steps =
      estimate_work(DenoisingSchedule::sparse(falling_sigmas(50), config, 57), config, flux_shape());
  EXPECT_GT(steps[0].work, steps[0].dense_work) << "block means are kept from the first step on";
  EXPECT_LT(steps[0].work, 1.001 * steps[0].dense_work);
  EXPECT_GT(steps[1].attention_kept, 0.999) << "a refresh reads every column";
  const double dense_layers = 2.0 / 57.0;
  EXPECT_NEAR(steps[2].attention_kept, dense_layers + (1 - dense_layers) * 760.0 / 4608.0, 1e-9);
  EXPECT_NEAR(steps[2].mlp_kept, dense_layers + (1 - dense_layers) * 0.335, 1e-3);
  EXPECT_GT(steps[12].work, steps[11].work) << "choosing features costs something";
  const double share = share_of_dense_work(steps);
  EXPECT_GT(share, 0.35);
  EXPECT_LT(share, 0.5);
}

TEST(Work, TextWithAnMlpOfItsOwnIsDenseWhereTheConfigSaysSo) {
  SparsityConfig config = SparsityConfig::preset("flux");
  TransformerShape shape = flux_shape();
  shape.text_mlp_layers = 19;
  const DenoisingSchedule schedule = DenoisingSchedule::sparse(falling_sigmas(50), config, 57);
  const std::vector<StepEstimate> with_text = estimate_work(schedule, config, shape);
  config.mlp.include_text = false;
  const std::vector<StepEstimate> without = estimate_work(schedule, config, shape);
  // Step 11 uses the features of the step before; two of the 19 layers are dense as a whole.
  ASSERT_EQ(schedule.steps()[11].mlp, MlpStep::kSparseReuse);
  const double features = expected_features_kept(config.mlp, shape.mlp_features), layers = 17.0;
  EXPECT_NEAR(without[11].mlp_kept - with_text[11].mlp_kept, layers / 57.0 * (512.0 / 4608.0) * (1.0 - features),
              1e-12);
  const double rest = 512.0 * 12288.0 * features + 512.0 * 3072.0;  // differences and the addition to the output
  EXPECT_NEAR(
      (without[11].work - with_text[11].work) / (layers * (2.0 * 512.0 * 3072.0 * 12288.0 * (1.0 - features) - rest)),
      1.0, 1e-9);
  EXPECT_LT(without[10].work, with_text[10].work) << "a full step keeps fewer means";
}

TEST(Work, SkippedStepsAreFree) {
  const SparsityConfig config = SparsityConfig::preset("flux-caching");
  const std::vector<StepEstimate> steps =
      estimate_work(DenoisingSchedule::sparse(falling_sigmas(50), config, 57), config, flux_shape());
  EXPECT_EQ(steps[7].work, 0.0);
  EXPECT_EQ(steps[7].attention_kept, 0.0);
  EXPECT_EQ(steps[7].mlp_kept, 0.0);
  EXPECT_GT(steps[7].dense_work, 0.0);
}

TEST(Work, InvocationsCancelOut) {
  SparsityConfig config = SparsityConfig::preset("hunyuan");
  const DenoisingSchedule schedule = DenoisingSchedule::sparse(falling_sigmas(20), config, 57);
  const std::vector<StepEstimate> one = estimate_work(schedule, config, flux_shape());
  config.num_model_invocations_per_inference_step = 2;
  const std::vector<StepEstimate> two = estimate_work(schedule, config, flux_shape());
  EXPECT_NEAR(two[5].work, 2 * one[5].work, 1e-6 * two[5].work);
  EXPECT_NEAR(share_of_dense_work(one), share_of_dense_work(two), 1e-12);
}

TEST(Work, BadShapes) {
  const SparsityConfig config = SparsityConfig::preset("flux");
  const DenoisingSchedule schedule = DenoisingSchedule::dense(falling_sigmas(2));
  expect_error(ErrorCode::kInvalidArgument, {"at least 1"}, [&] { estimate_work(schedule, config, {}); });
  TransformerShape shape = flux_shape();
  shape.text_tokens = 5000;
  expect_error(ErrorCode::kInvalidArgument, {"5000 text"}, [&] { estimate_work(schedule, config, shape); });
  expect_error(ErrorCode::kInvalidArgument, {"features"}, [&] { expected_features_kept(config.mlp, 0); });
}

}  // namespace
}  // namespace chipmunk
