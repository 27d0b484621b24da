#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "backend.h"
#include "core/fp8_rows.h"
#include "models/block_streamer.h"
#include "models/device_weights.h"
#include "models/flux_rope.h"
#include "models/offloadable_weights.h"
#include "ops/elementwise.h"
#include "support/flux_engine.h"
#include "support/op_test.h"
#include "support/sparsity_file.h"

/// Weights that become f8_e4m3 on their way to where they are used, and generations with them.
namespace chipmunk {
namespace {

using test::Engine;
using test::Outcome;

constexpr int64_t kRows = 1500, kColumns = 3001;

/// Large enough that pieces of an upload end within rows.
Tensor large_weight() {
  const Tensor weight = make_host_tensor({kRows, kColumns}, DType::kBF16);
  for (int64_t i = 0; i < weight.numel(); ++i) {
    weight.data_as<uint16_t>()[i] = static_cast<uint16_t>(i * 2654435761u >> 8) & 0xbfffu;  // below 2
  }
  return weight;
}

/// The weight in e4m3 with its scales, by the definition.
void expect_quantized(const Tensor& values, const Tensor& scales, const Tensor& weight) {
  ASSERT_EQ(values.dtype(), DType::kF8E4M3);
  ASSERT_EQ(values.shape(), weight.shape());
  ASSERT_EQ(scales.dtype(), DType::kF32);
  ASSERT_EQ(scales.shape(), Dims{kRows});
  std::vector<uint8_t> expected(static_cast<size_t>(kColumns));
  for (int64_t r = 0; r < kRows; ++r) {
    const uint16_t* row = weight.data_as<uint16_t>() + r * kColumns;
    const Fp8RowScale scale = fp8_row_scale(row, DType::kBF16, kColumns);
    quantize_fp8_row(row, DType::kBF16, 0, kColumns, scale, expected.data());
    ASSERT_EQ(scales.data_as<float>()[r], scale.scale) << r;
    ASSERT_EQ(std::memcmp(values.data_as<uint8_t>() + r * kColumns, expected.data(), expected.size()), 0) << r;
  }
}

TEST(Fp8Weights, AreQuantisedOnTheirWayAndComeBack) {
  const test::SimulatedDevice device;
  const Tensor original = large_weight();
  Tensor weight = original, scales, other = make_host_tensor({7}, DType::kF32);
  std::memset(other.data(), 0, other.bytes());
  const std::vector<WeightGroup> groups = {{"group", {&weight, &scales, &other}, {{&weight, &scales}}}};
  OffloadableWeights weights(device.context(), groups);
  EXPECT_LT(weights.bytes(), original.bytes() * 6 / 10);
  for (int round = 0; round < 2; ++round) {
    weights.upload({});
    EXPECT_EQ(weight.device().kind, DeviceKind::kCuda);
    expect_quantized(weight, scales, original);
    weights.release();
    EXPECT_EQ(weight.data(), original.data());
    EXPECT_TRUE(scales.empty());
  }
}

TEST(Fp8Weights, WaitInPinnedMemoryAsFp8) {
  const test::SimulatedDevice device;
  const Tensor original = large_weight();
  Tensor weight = original, scales;
  BlockStreamer streamer(device.context(), {{"block", {&weight, &scales}, {{&weight, &scales}}}}, {});
  EXPECT_LT(device.pinned_bytes(), original.bytes() * 6 / 10);
  expect_quantized(weight, scales, original);
  streamer.begin_block(0);
  EXPECT_EQ(weight.device().kind, DeviceKind::kCuda);
  expect_quantized(weight, scales, original);
  streamer.end_block(0);
}

TEST(Fp8Weights, StoredAsFp8StayAsTheyAre) {
  const test::SimulatedDevice device;
  const Tensor original = make_host_tensor({32, 64}, DType::kF8E4M3);
  for (int64_t i = 0; i < original.numel(); ++i) original.data_as<uint8_t>()[i] = static_cast<uint8_t>(i % 0x7f);
  Tensor weight = original, scales;
  OffloadableWeights weights(device.context(), {{"group", {&weight, &scales}, {{&weight, &scales}}}});
  weights.upload({});
  EXPECT_EQ(std::memcmp(weight.data(), original.data(), original.bytes()), 0);
  for (int64_t r = 0; r < 32; ++r) EXPECT_EQ(scales.data_as<float>()[r], 1.0f);
}

TEST(Fp8Weights, AreThoseOfTheBlocksLinears) {
  Engine engine("cpu", WeightOptions{Offload::kNone, true});
  const FluxTransformer& model = engine.pipeline->components().transformer;
  const auto is_fp8 = [](const Linear& layer) {
    return layer.weight.dtype() == DType::kF8E4M3 && !layer.scale.empty();
  };
  for (const FluxDoubleBlock& block : model.double_blocks) {
    for (const FluxDoubleStream* stream : {&block.image, &block.text}) {
      for (const Linear& part : stream->qkv.parts) EXPECT_TRUE(is_fp8(part));
      EXPECT_TRUE(is_fp8(stream->attention_out));
      EXPECT_TRUE(is_fp8(stream->feed_forward.in));
      EXPECT_TRUE(is_fp8(stream->feed_forward.out));
      EXPECT_FALSE(is_fp8(stream->modulation));
    }
  }
  for (const FluxSingleBlock& block : model.single_blocks) {
    for (const Linear& part : block.qkv.parts) EXPECT_TRUE(is_fp8(part));
    EXPECT_TRUE(is_fp8(block.mlp_in));
    EXPECT_TRUE(is_fp8(block.out));
    EXPECT_FALSE(is_fp8(block.modulation));
  }
  for (const Linear* layer : {&model.x_embedder, &model.context_embedder, &model.norm_out, &model.proj_out,
                              &model.timestep_embedder.linear_1, &model.text_embedder.linear_2}) {
    EXPECT_FALSE(is_fp8(*layer));
  }
}

GenerateRequest small_request() {
  GenerateRequest request;
  request.prompt = "a photo of a cat";
  request.width = 64;
  request.height = 48;
  request.steps = 5;
  request.seed = 5;
  return request;
}

double relative_error(const std::vector<float>& got, const std::vector<float>& expected) {
  double difference = 0.0, norm = 0.0;
  for (size_t i = 0; i < got.size(); ++i) {
    difference += std::pow(static_cast<double>(got[i]) - static_cast<double>(expected[i]), 2);
    norm += std::pow(static_cast<double>(expected[i]), 2);
  }
  return std::sqrt(difference / norm);
}

class Fp8Generation : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (GetParam() == "cuda" && !test::device_available("cuda")) {
      if (test::cuda_is_required()) FAIL() << "CHIPMUNK_REQUIRE_CUDA=1, but no GPU";
      GTEST_SKIP() << "no CUDA device";
    }
  }
  const test::SparsityFile sparsity_{3};
};

TEST_P(Fp8Generation, IsNearTheOtherAndNotTheSame) {
  std::vector<GenerateRequest> requests(3, small_request());
  requests[1].true_cfg_scale = 2.0f;
  requests[1].batch_count = 2;
  requests[2].sparsity = sparsity_.path();
  const Engine plain(GetParam()), fp8(GetParam(), WeightOptions{Offload::kNone, true});
  for (const GenerateRequest& request : requests) {
    const Outcome expected = plain.generate(request), got = fp8.generate(request);
    ASSERT_EQ(got.latents.size(), expected.latents.size());
    const double error = relative_error(got.latents.back(), expected.latents.back());
    // Random weights and few steps; how far trained ones get, docs/fp8.md says.
    EXPECT_GT(error, 1e-4);
    EXPECT_LT(error, 0.1);
  }
}

TEST_P(Fp8Generation, OffloadedGivesTheSameBitsSlow) {
  std::vector<GenerateRequest> requests(2, small_request());
  requests[1].sparsity = sparsity_.path();
  const Engine resident(GetParam(), WeightOptions{Offload::kNone, true});
  for (const Offload offload : {Offload::kText, Offload::kBlocks}) {
    const Engine engine(GetParam(), WeightOptions{offload, true});
    for (const GenerateRequest& request : requests) {
      EXPECT_TRUE(engine.generate(request).same_values(resident.generate(request))) << static_cast<int>(offload);
    }
  }
}

TEST_P(Fp8Generation, WeightsTakeLessMemory) {
  const Engine plain(GetParam()), fp8(GetParam(), WeightOptions{Offload::kNone, true});
  if (GetParam() == "cpu") return;  // they are mapped, and no allocation
  EXPECT_LT(fp8.in_use(), plain.in_use());
}

INSTANTIATE_TEST_SUITE_P(Devices, Fp8Generation, ::testing::Values("cpu", "simulated", "cuda"),
                         [](const auto& device) { return device.param; });

/// How far the predicted velocity is off, at every fourth step of a picture of the trained demo model, where both see
/// the same latents. The figures of docs/fp8.md.
TEST(Fp8OnTheCpu, DemoModelsVelocityIsNearSlow) {
  const Context context = make_cpu_context({2, 0});
  ModelFiles files;
  files.model = CHIPMUNK_SOURCE_DIR "/models/scenes";
  ProgressSink silent;
  FluxPipeline plain(context, FluxComponents::load(context, files));
  FluxPipeline fp8(context, FluxComponents::load(context, files), WeightOptions{Offload::kNone, true}, silent);
  DenoiseInputs inputs;
  inputs.geometry = plain.geometry(plain.native_width(), plain.native_height());
  inputs.prompt = plain.encode_prompt("a red circle above a blue square", 512, silent);
  inputs.guidance_scale = 3.5f;
  inputs.latents = packed_noise(context, inputs.geometry, 1, 3);
  const FluxTransformer& transformer = fp8.components().transformer;
  const RopeTables rope = make_rope_tables(
      context,
      flux_positions(inputs.prompt.features.dim(1), inputs.geometry.grid_height(), inputs.geometry.grid_width()),
      transformer.config.axes_dims_rope, 10000.0);
  const auto values = [](const Tensor& tensor) {
    return std::vector<float>(tensor.data_as<float>(), tensor.data_as<float>() + tensor.numel());
  };
  plain.denoise(inputs, plain.schedule(28, inputs.geometry), silent, [&](const Step& step, const Tensor& velocity) {
    if (step.index % 4 != 0) return;
    const Tensor before = context.empty(inputs.latents.shape());
    ops::axpby_into(context, 1.0f, inputs.latents, step.sigma - step.sigma_next, velocity, before);
    const Tensor got = transformer.forward(
        context, {before, inputs.prompt.features, inputs.prompt.pooled, {step.sigma}, {inputs.guidance_scale}}, rope,
        {});
    const double error = relative_error(values(got), values(velocity));
    RecordProperty("velocity_error_" + std::to_string(step.index), std::to_string(error));
    EXPECT_GT(error, 1e-4);
    EXPECT_LT(error, 0.1);
  });
}

TEST(Fp8OnTheCpu, SimulatedDeviceGivesTheCpusBits) {
  const Engine cpu("cpu", WeightOptions{Offload::kNone, true});
  const Engine device("simulated", WeightOptions{Offload::kBlocks, true});
  EXPECT_TRUE(device.generate(small_request()).same_values(cpu.generate(small_request())));
}

}  // namespace
}  // namespace chipmunk
