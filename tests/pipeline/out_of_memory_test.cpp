#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "chipmunk/error.h"
#include "pipeline/memory_advice.h"
#include "support/flux_engine.h"
#include "support/sparsity_file.h"

/// Generations that do not fit into the memory they may take.
namespace chipmunk {
namespace {

using test::Engine;

GenerateRequest request_of(int width, int height, int batch_count) {
  GenerateRequest request;
  request.prompt = "a photo of a cat";
  request.width = width;
  request.height = height;
  request.batch_count = batch_count;
  request.steps = 2;
  // Else text encoding would take the most.
  request.max_sequence_length = 16;
  request.seed = 5;
  return request;
}

void expect_parts(const std::string& text, std::initializer_list<const char*> parts) {
  for (const char* part : parts) EXPECT_NE(text.find(part), std::string::npos) << part << " in: " << text;
}

/// What the kOutOfMemory of a generation says; empty if it fits.
std::string out_of_memory(const Engine& engine, const GenerateRequest& request) {
  try {
    engine.generate(request);
    return {};
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory) << error.what();
    return error.what();
  }
}

TEST(OutOfMemory, TheNextGenerationRunsAsIfNothingHadHappened) {
  const GenerateRequest small = request_of(32, 32, 1), large = request_of(192, 192, 2);
  const test::Outcome expected = Engine("cpu").generate(small);
  const size_t large_peak = Engine("cpu").generate(large).peak_bytes;
  ASSERT_LT(2 * expected.peak_bytes, large_peak);
  const Engine engine("cpu", Offload::kNone, (expected.peak_bytes + large_peak) / 2);
  const size_t loaded = engine.in_use();
  for (int round = 0; round < 3; ++round) {
    const std::string message = out_of_memory(engine, large);
    expect_parts(message, {"allocating ", " on cpu would exceed the limit of ", " in use)", "what helps: "});
    EXPECT_EQ(engine.in_use(), loaded);
    EXPECT_TRUE(engine.generate(small).same_values(expected));
    EXPECT_EQ(engine.in_use(), loaded);
  }
}

class OutOfMemoryStages : public ::testing::TestWithParam<Offload> {};

TEST_P(OutOfMemoryStages, WhereverItHappensNothingStaysSlow) {
  const GenerateRequest request = request_of(192, 192, 3);
  size_t loaded = 0, peak = 0;
  {
    const Engine engine("simulated", GetParam());
    loaded = engine.in_use();
    peak = engine.generate(request).peak_bytes;
  }
  std::set<std::string> stages;
  constexpr size_t kSteps = 40;
  for (size_t i = 0; i < kSteps; ++i) {
    const Engine engine("simulated", GetParam(), loaded + (peak - loaded) * i / kSteps);
    ASSERT_EQ(engine.in_use(), loaded);
    const size_t pinned = engine.simulated->pinned_bytes();
    const std::string message = out_of_memory(engine, request);
    ASSERT_FALSE(message.empty()) << "fits into less than its peak";
    stages.insert(message.substr(0, message.find(':')));
    EXPECT_EQ(engine.in_use(), loaded) << message;
    EXPECT_EQ(engine.simulated->pinned_bytes(), pinned) << message;
    EXPECT_EQ(message, out_of_memory(engine, request)) << "the second time differs";
  }
  EXPECT_EQ(stages, (std::set<std::string>{"text encoding", "denoising", "decoding"}));
  EXPECT_EQ(out_of_memory(Engine("simulated", GetParam(), peak), request), "");
}

INSTANTIATE_TEST_SUITE_P(Offloads, OutOfMemoryStages,
                         ::testing::Values(Offload::kNone, Offload::kText, Offload::kBlocks));

/// Not the limit but one single allocation: wherever it is, nothing stays, and what comes next is not disturbed.
class FailedAllocations : public ::testing::TestWithParam<Offload> {
 protected:
  const test::SparsityFile sparsity_{2};
};

TEST_P(FailedAllocations, LeaveTheNextGenerationUndisturbedSlow) {
  GenerateRequest request = request_of(32, 32, 1);
  request.true_cfg_scale = 2.0f;
  request.sparsity = sparsity_.path();
  const Engine engine("simulated", GetParam());
  const test::SimulatedDevice& device = *engine.simulated;
  // The first sparse generation also makes what the pipeline keeps.
  const test::Outcome expected = engine.generate(request);
  const size_t in_use = engine.in_use(), pinned = device.pinned_bytes();
  const int before = device.allocations();
  engine.generate(request);
  const int count = device.allocations() - before;
  ASSERT_GT(count, 100);
  // A prime, so that no kind of allocation is left out by its place in a block.
  constexpr int kStride = 23;
  for (int i = 0; i < count; i += kStride) {
    device.fail_allocation_after(i);
    ASSERT_NE(out_of_memory(engine, request), "") << "allocation " << i << " of " << count;
    ASSERT_EQ(engine.in_use(), in_use) << "after allocation " << i;
    ASSERT_EQ(device.pinned_bytes(), pinned) << "after allocation " << i;
    if (i % (3 * kStride) == 0) {
      ASSERT_TRUE(engine.generate(request).same_values(expected)) << i;
    }
  }
}

TEST_P(FailedAllocations, OfLoadingLeaveNothingSlow) {
  const test::SimulatedDevice device;
  ModelFiles files;
  files.model = test::tiny_flux();
  const auto load = [&] {
    ProgressSink silent;
    const FluxPipeline pipeline(device.context(), FluxComponents::load(device.context(), files),
                                WeightOptions{GetParam()}, silent);
    return device.context().runtime().memory().current_bytes;
  };
  const size_t loaded = load();
  const int count = device.allocations();
  ASSERT_GT(count, 10);
  for (int i = 0; i < count; i += 3) {
    device.fail_allocation_after(i);
    try {
      load();
      ADD_FAILURE() << "allocation " << i << " of " << count << " was not missed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory) << error.what();
    }
    ASSERT_EQ(device.context().runtime().memory().current_bytes, 0u) << "after allocation " << i;
    ASSERT_EQ(device.pinned_bytes(), 0u) << "after allocation " << i;
  }
  EXPECT_EQ(load(), loaded);
  EXPECT_EQ(device.violations(), std::vector<std::string>());
}

INSTANTIATE_TEST_SUITE_P(Offloads, FailedAllocations,
                         ::testing::Values(Offload::kNone, Offload::kText, Offload::kBlocks));

TEST(OutOfMemory, LoadingSaysWhatHelps) {
  const size_t all = Engine("simulated").in_use();
  for (const Offload offload : {Offload::kNone, Offload::kText}) {
    try {
      const Engine engine("simulated", offload, all / 2);
      ADD_FAILURE() << "expected an error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
      expect_parts(error.what(),
                   {"loading: allocating ", " on cuda:0 would exceed the limit of ", "a higher memory limit",
                    offload == Offload::kNone ? "--offload text or blocks" : "--offload blocks"});
    }
  }
  const Engine engine("simulated", Offload::kBlocks, all / 2);
  EXPECT_LT(engine.in_use(), all / 2);
}

TEST(OutOfMemory, TheAdviceFitsTheStage) {
  const Engine cpu("cpu"), gpu("simulated"), limited("simulated", Offload::kNone, size_t{1} << 30);
  const auto advice = [](const Engine& engine, const MemoryDemand& demand) {
    const Error error = with_memory_advice(Error(ErrorCode::kOutOfMemory, "no memory"), engine.context, demand);
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
    return std::string(error.what());
  };
  EXPECT_EQ(advice(cpu, {.stage = GenerationStage::kTextEncoding}), "text encoding: no memory");
  EXPECT_EQ(advice(cpu, {.stage = GenerationStage::kDenoising, .batch_count = 2}),
            "denoising: no memory; what helps: a smaller --width and --height, a smaller --batch-count");
  EXPECT_EQ(advice(cpu, {.stage = GenerationStage::kDecoding, .batch_count = 2, .decodes_whole = true}),
            "decoding: no memory; what helps: --vae-tiling, a smaller --width and --height");
  EXPECT_EQ(advice(gpu, {.stage = GenerationStage::kDenoising}),
            "denoising: no memory; what helps: --offload text or blocks, a smaller --width and --height");
  EXPECT_EQ(advice(gpu, {.stage = GenerationStage::kTextEncoding, .offload = Offload::kText}),
            "text encoding: no memory; what helps: --offload blocks");
  EXPECT_EQ(advice(limited, {.stage = GenerationStage::kTextEncoding, .offload = Offload::kBlocks}),
            "text encoding: no memory; what helps: a higher memory limit");
}

}  // namespace
}  // namespace chipmunk
