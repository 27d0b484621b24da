#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "chipmunk/error.h"
#include "support/flux_engine.h"
#include "support/op_test.h"
#include "support/sparsity_file.h"
#include "support/synthetic_flux.h"

/// Whole generations with weights that leave the device: the same bits, in less memory.
namespace chipmunk {
namespace {

using test::Engine;
using test::Outcome;

GenerateRequest small_request() {
  GenerateRequest request;
  request.prompt = "a photo of a cat";
  request.negative_prompt = "a dog";
  request.width = 64;
  request.height = 48;
  request.steps = 5;
  request.seed = 5;
  return request;
}

class OffloadedGeneration : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (GetParam() == "cuda" && !test::device_available("cuda")) {
      if (test::cuda_is_required()) FAIL() << "CHIPMUNK_REQUIRE_CUDA=1, but no GPU";
      GTEST_SKIP() << "no CUDA device";
    }
  }
  const test::SparsityFile sparsity_{3, "step_caching: {is_enabled: true, skip_step_schedule: [4]}\n"};
};

TEST_P(OffloadedGeneration, GivesTheSameBitsSlow) {
  std::vector<GenerateRequest> requests(3, small_request());
  requests[1].batch_count = 2;
  requests[1].true_cfg_scale = 2.0f;
  requests[2].sparsity = sparsity_.path();
  std::vector<Outcome> expected;
  {
    Engine resident(GetParam(), Offload::kNone);
    for (const GenerateRequest& request : requests) expected.push_back(resident.generate(request));
  }
  for (const Offload offload : {Offload::kText, Offload::kBlocks}) {
    Engine engine(GetParam(), offload);
    for (int round = 0; round < 2; ++round) {
      for (size_t i = 0; i < requests.size(); ++i) {
        EXPECT_TRUE(engine.generate(requests[i]).same_values(expected[i]))
            << "offload " << static_cast<int>(offload) << ", request " << i << ", round " << round;
      }
    }
  }
}

TEST_P(OffloadedGeneration, TakesLessMemory) {
  std::vector<size_t> in_use, peak;
  for (const Offload offload : {Offload::kNone, Offload::kText, Offload::kBlocks}) {
    Engine engine(GetParam(), offload);
    const size_t loaded = engine.in_use();
    in_use.push_back(loaded);
    for (int i = 0; i < 2; ++i) {
      peak.push_back(engine.generate(small_request()).peak_bytes);
      EXPECT_EQ(engine.in_use(), loaded) << "something of a generation stayed";
    }
  }
  if (GetParam() == "cpu") {
    // The weights are mapped.
    EXPECT_EQ(in_use, std::vector<size_t>(3, in_use[0]));
    return;
  }
  const auto stored = [](const char* part) {
    return static_cast<double>(test::stored_weight_bytes(test::tiny_flux() / part));
  };
  const double text = stored("text_encoder") + stored("text_encoder_2"), transformer = stored("transformer");
  EXPECT_NEAR(static_cast<double>(in_use[0] - in_use[1]), text, 0.1 * text);
  // Nearly all of the transformer is blocks.
  EXPECT_GT(static_cast<double>(in_use[1] - in_use[2]), 0.8 * transformer);
  EXPECT_LT(peak[4], peak[0]);
}

TEST_P(OffloadedGeneration, DenoisesWithoutTheTextEncoders) {
  class StageMemory : public ProgressSink {
   public:
    explicit StageMemory(const Engine& engine) : engine_(engine) {}
    void on_stage(std::string_view stage) override { bytes[std::string(stage)] = engine_.in_use(); }
    std::map<std::string, size_t> bytes;

   private:
    const Engine& engine_;
  };
  for (const Offload offload : {Offload::kText, Offload::kBlocks}) {
    Engine engine(GetParam(), offload);
    const size_t loaded = engine.in_use();
    StageMemory memory(engine);
    engine.pipeline->generate(small_request(), memory);
    // What the prompt became and the noise are all that is new.
    EXPECT_LT(memory.bytes.at("denoising"), loaded + 100'000);
    EXPECT_LT(memory.bytes.at("decoding"), loaded + 100'000);
  }
}

TEST_P(OffloadedGeneration, TellsHowWeightsGetToTheDevice) {
  for (const Offload offload : {Offload::kNone, Offload::kText, Offload::kBlocks}) {
    Engine engine(GetParam(), offload);
    test::EngineRecorder recorder;
    engine.pipeline->generate(small_request(), recorder);
    std::vector<const test::EngineRecorder*> loads = {&engine.loading};
    if (offload == Offload::kNone) {
      EXPECT_TRUE(recorder.loading.empty());
    } else if (GetParam() != "cpu") {
      loads.push_back(&recorder);
    }
    for (const test::EngineRecorder* load : loads) {
      if (GetParam() == "cpu") {
        EXPECT_TRUE(load->loading.empty());
        continue;
      }
      ASSERT_FALSE(load->loading.empty());
      size_t before = 0;
      for (const LoadReport& report : load->loading) {
        EXPECT_GE(report.done_bytes, before);
        EXPECT_EQ(report.complete, &report == &load->loading.back());
        before = report.done_bytes;
      }
      EXPECT_EQ(before, load->loading.back().total_bytes);
    }
  }
}

/// Says stop when it is asked once more than it may be.
class Stopper : public ProgressSink {
 public:
  explicit Stopper(int patience) : patience_(patience) {}
  int asked = 0;
  bool cancelled() override { return ++asked > patience_; }

 private:
  int patience_;
};

constexpr int kForEver = std::numeric_limits<int>::max();

void expect_cancelled(const std::function<void()>& run) {
  try {
    run();
    ADD_FAILURE() << "expected it to stop";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCancelled) << error.what();
  }
}

TEST_P(OffloadedGeneration, StopsWhileItLoads) {
  if (GetParam() == "cpu") GTEST_SKIP() << "nothing is loaded";
  const Engine other(GetParam(), Offload::kText);
  const auto pinned = [&other] { return other.simulated ? other.simulated->pinned_bytes() : 0; };
  const size_t in_use_before = other.in_use(), pinned_before = pinned();
  ModelFiles files;
  files.model = test::tiny_flux();
  for (const Offload offload : {Offload::kNone, Offload::kText, Offload::kBlocks}) {
    const auto load = [&](Stopper& stopper) {
      const FluxPipeline pipeline(other.context, FluxComponents::load(other.context, files), WeightOptions{offload},
                                  stopper);
    };
    Stopper patient(kForEver);
    load(patient);
    ASSERT_GT(patient.asked, 4);
    // The last one with the last of the weights.
    for (const int patience : {0, 1, patient.asked / 2, patient.asked - 1}) {
      Stopper stopper(patience);
      expect_cancelled([&] { load(stopper); });
      EXPECT_EQ(other.in_use(), in_use_before) << patience << " of " << patient.asked;
      EXPECT_EQ(pinned(), pinned_before) << patience << " of " << patient.asked;
    }
  }
}

TEST_P(OffloadedGeneration, StopsWhileTextEncodersComeBack) {
  if (GetParam() == "cpu") GTEST_SKIP() << "nothing is loaded";
  for (const Offload offload : {Offload::kText, Offload::kBlocks}) {
    const Engine engine(GetParam(), offload);
    const Outcome expected = engine.generate(small_request());
    const size_t loaded = engine.in_use();
    // One question comes before the stage, and then one an encoder's block, which are small.
    for (const int patience : {1, 2, 4}) {
      Stopper stopper(patience);
      expect_cancelled([&] { engine.pipeline->generate(small_request(), stopper); });
      EXPECT_EQ(engine.in_use(), loaded);
      EXPECT_TRUE(engine.generate(small_request()).same_values(expected)) << patience;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, OffloadedGeneration, ::testing::Values("cpu", "simulated", "cuda"),
                         [](const auto& device) { return device.param + "_device"; });

TEST(Offload, TheSimulatedDeviceComputesWhatTheCpuDoes) {
  Engine cpu("cpu", Offload::kNone), simulated("simulated", Offload::kBlocks);
  EXPECT_TRUE(cpu.generate(small_request()).same_values(simulated.generate(small_request())));
}

}  // namespace
}  // namespace chipmunk
