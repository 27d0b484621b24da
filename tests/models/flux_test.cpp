#include <gtest/gtest.h>

#include <cmath>

#include "chipmunk/error.h"
#include "models/flux_rope.h"
#include "models/flux_transformer.h"
#include "models/inferred_config.h"
#include "models/original_names.h"
#include "support/contexts.h"

namespace chipmunk {
namespace {

const std::string kFluxJson =
    R"("in_channels": 64, "num_layers": 1, "num_single_layers": 2, "attention_head_dim": 128,
       "num_attention_heads": 3, "joint_attention_dim": 16, "pooled_projection_dim": 8)";

TEST(FluxConfig, ReadsDiffusersKeysAndDefaults) {
  const FluxConfig config = FluxConfig::from_json(JsonConfig::parse("{" + kFluxJson + "}", "config"));
  EXPECT_EQ(config.inner_dim(), 384);
  EXPECT_EQ(config.mlp_dim(), 1536);
  EXPECT_EQ(config.out_channels, 64);
  EXPECT_FALSE(config.guidance_embeds);
  EXPECT_EQ(config.axes_dims_rope, (std::vector<int64_t>{16, 56, 56}));
}

TEST(FluxConfig, RejectsContradictions) {
  const auto fails = [](const std::string& json) {
    EXPECT_THROW(FluxConfig::from_json(JsonConfig::parse(json, "config")), Error) << json;
  };
  fails("{}");
  fails("{" + kFluxJson + R"(, "axes_dims_rope": [16, 56, 54]})");
  fails("{" + kFluxJson + R"(, "axes_dims_rope": [64, 64]})");
  fails("{" + kFluxJson + R"(, "axes_dims_rope": [17, 55, 56]})");
  fails("{" + kFluxJson + R"(, "patch_size": 2})");
  fails(R"({"in_channels": -1})");
}

TEST(FluxRope, FollowsTheFormula) {
  const Context context = test::cpu_context();
  const RopeTables rope = make_rope_tables(context, flux_positions(2, 3, 5), {4, 6, 8}, 10000.0);
  ASSERT_EQ(rope.cos.shape(), (Dims{17, 9}));
  const auto angle = [](double position, int i, int dim) { return position * std::pow(10000.0, -2.0 * i / dim); };
  const Tensor cos = context.to_host(rope.cos), sin = context.to_host(rope.sin);
  for (int token = 0; token < 17; ++token) {
    const int image = token - 2;
    const double row = image < 0 ? 0.0 : image / 5, column = image < 0 ? 0.0 : image % 5;
    for (int i = 0; i < 9; ++i) {
      const double expected = i < 2 ? 0.0 : i < 5 ? angle(row, i - 2, 6) : angle(column, i - 5, 8);
      EXPECT_NEAR(cos.data_as<float>()[token * 9 + i], std::cos(expected), 1e-7);
      EXPECT_NEAR(sin.data_as<float>()[token * 9 + i], std::sin(expected), 1e-7);
    }
  }
}

/// A host tensor whose elements count up, so that slices show where they come from.
Tensor counting(const Dims& shape) {
  const Tensor tensor = make_host_tensor(shape, DType::kF32);
  for (int64_t i = 0; i < tensor.numel(); ++i) tensor.data_as<float>()[i] = static_cast<float>(i);
  return tensor;
}

TEST(OriginalNames, SplitFusedMatricesByRows) {
  constexpr int64_t kInner = 4;
  WeightMap weights("test");
  weights.define("img_in.weight", counting({kInner, 2}));
  weights.define("double_blocks.0.img_mod.lin.weight", counting({6 * kInner, kInner}));
  weights.define("double_blocks.0.img_attn.qkv.weight", counting({3 * kInner, kInner}));
  weights.define("double_blocks.0.txt_attn.qkv.bias", counting({3 * kInner}));
  weights.define("single_blocks.0.linear1.weight", counting({7 * kInner, kInner}));
  ASSERT_TRUE(has_original_flux_names(weights));
  define_diffusers_flux_names(weights);
  const auto first = [&weights](const std::string& name, const Dims& shape) {
    return weights.take(name, shape).data_as<float>()[0];
  };
  const std::string block = "transformer_blocks.0.";
  EXPECT_EQ(first(block + "attn.to_q.weight", {kInner, kInner}), 0.0f);
  EXPECT_EQ(first(block + "attn.to_v.weight", {kInner, kInner}), 2.0f * kInner * kInner);
  EXPECT_EQ(first(block + "attn.add_k_proj.bias", {kInner}), 1.0f * kInner);
  EXPECT_EQ(first("single_transformer_blocks.0.proj_mlp.weight", {4 * kInner, kInner}), 3.0f * kInner * kInner);
}

TEST(OriginalNames, MisshapenFusedMatricesAreReported) {
  WeightMap weights("test");
  weights.define("img_in.weight", counting({4, 2}));
  weights.define("double_blocks.0.img_mod.lin.weight", counting({24, 4}));
  weights.define("double_blocks.0.img_attn.qkv.weight", counting({11, 4}));
  define_diffusers_flux_names(weights);
  EXPECT_FALSE(weights.contains("transformer_blocks.0.attn.to_q.weight"));
  try {
    weights.finish();
    FAIL() << "unused weights must be reported";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("img_attn.qkv.weight"), std::string::npos) << error.what();
  }
}

TEST(OriginalNames, DiffusersNamesAreLeftAlone) {
  WeightMap weights("test");
  weights.define("x_embedder.weight", counting({4, 2}));
  EXPECT_FALSE(has_original_flux_names(weights));
  EXPECT_FALSE(has_original_vae_names(weights));
}

TEST(InferredConfig, MissingWeightsAreErrors) {
  WeightMap weights("test");
  weights.define("x_embedder.weight", counting({4, 2}));
  EXPECT_THROW(infer_flux_config(weights), Error);
  EXPECT_THROW(infer_vae_config(weights), Error);
  EXPECT_THROW(infer_clip_text_config(weights), Error);
  EXPECT_THROW(infer_t5_config(weights), Error);
}

}  // namespace
}  // namespace chipmunk
