#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "chipmunk/error.h"
#include "chipmunk/pipeline.h"

/// Whole generations with the sparse method, on the small random model.
namespace chipmunk {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<Pipeline> load_model() {
  LoadOptions options;
  options.files.model = CHIPMUNK_TEST_DATA "/golden/flux-tiny/model";
  options.threads = 2;
  return Pipeline::load(options);
}

/// Collects the latents after each step.
class Recorder : public ProgressSink {
 public:
  std::vector<std::vector<float>> latents;

  bool wants_latents() const override { return true; }
  void on_latents(int, const float* values, size_t count) override { latents.emplace_back(values, values + count); }
};

class SparseGeneration : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("chipmunk_sparse_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  /// A YAML file with this text.
  std::string config(const std::string& yaml) {
    const fs::path path = folder_ / ("config" + std::to_string(files_++) + ".yml");
    std::ofstream(path) << yaml;
    return path.string();
  }

  static GenerateRequest request(int width, int height, int steps, const std::string& sparsity) {
    GenerateRequest request;
    request.prompt = "a photo of a cat";
    request.width = width;
    request.height = height;
    request.steps = steps;
    request.seed = 5;
    request.sparsity = sparsity;
    request.record = true;
    return request;
  }

 private:
  fs::path folder_;
  int files_ = 0;
};

double relative_error(const std::vector<float>& got, const std::vector<float>& expected) {
  double difference = 0.0, size = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(static_cast<double>(got[i]) - static_cast<double>(expected[i]), 2);
    size += std::pow(static_cast<double>(expected[i]), 2);
  }
  return std::sqrt(difference / size);
}

TEST_F(SparseGeneration, WithEverythingKeptIsDenseSlow) {
  const auto pipeline = load_model();
  struct Size {
    int width, height, batch;
    float true_cfg;
  };
  for (const Size& size : {Size{144, 80, 1, 1.0f}, Size{48, 112, 2, 1.0f}, Size{64, 64, 2, 2.0f}}) {
    const auto run = [&](const std::string& sparsity) {
      GenerateRequest wanted = request(size.width, size.height, 6, sparsity);
      wanted.batch_count = size.batch;
      wanted.true_cfg_scale = size.true_cfg;
      Recorder recorder;
      pipeline->generate(wanted, recorder);
      return recorder.latents;
    };
    const auto dense = run("");
    for (const char* combine : {"difference", "merge"}) {
      for (const char* layers : {"0", "2"}) {
        const std::string first = std::string("first_n_dense_layers: ") + layers;
        const auto sparse =
            run(config("attn: {is_enabled: true, top_keys: 1.0, random_keys: 0.0, full_step_every: 3, " + first +
                       ", combine: " + combine + "}\nmlp: {is_enabled: true, top_keys: 1.0, " + first +
                       ", include_text: " + (std::string(combine) == "merge" ? "true" : "false") +
                       ", full_step_every: 4}\npatchify: {is_enabled: true}\n"));
        ASSERT_EQ(sparse.size(), dense.size());
        for (size_t step = 0; step < dense.size(); ++step) {
          EXPECT_LT(relative_error(sparse[step], dense[step]), 1e-5) << combine << " step " << step;
        }
      }
    }
  }
}

TEST_F(SparseGeneration, KeepsWhatTheConfigSaysAndStaysClose) {
  const auto pipeline = load_model();
  const std::string sparsity = config(
      "attn: {is_enabled: true, top_keys: 0.25, should_compress_indices: false, full_step_every: 4, "
      "first_n_dense_layers: 1}\nmlp: {is_enabled: true, top_keys: 0.5, random_keys: 0.0, full_step_every: 5, "
      "first_n_dense_layers: 2}\n");
  Recorder dense_recorder, recorder;
  const GenerateResult dense = pipeline->generate(request(144, 80, 8, ""), dense_recorder);
  const GenerateResult sparse = pipeline->generate(request(144, 80, 8, sparsity), recorder);
  ASSERT_EQ(sparse.steps.size(), 8u);
  const char* const attention[] = {"dense", "refresh", "sparse", "sparse", "refresh", "sparse", "sparse", "sparse"};
  const char* const mlp[] = {"full", "select", "select", "select", "select", "full", "select", "select"};
  for (size_t i = 0; i < sparse.steps.size(); ++i) {
    const StepRecord& step = sparse.steps[i];
    EXPECT_EQ(step.attention, attention[i]);
    EXPECT_EQ(step.mlp, mlp[i]);
    EXPECT_DOUBLE_EQ(step.dense_multiply_adds, dense.steps[i].multiply_adds) << i;
    ASSERT_EQ(step.layers.size(), 5u);
    EXPECT_DOUBLE_EQ(step.layers[0].attention_kept, 1.0);
    EXPECT_NEAR(step.layers[1].attention_kept, step.attention == "sparse" ? 0.25 : 1.0, 0.01) << i;
    EXPECT_DOUBLE_EQ(step.layers[1].mlp_kept, 1.0);
    EXPECT_NEAR(step.layers[2].mlp_kept, step.mlp == "full" ? 1.0 : 0.5, 0.01) << i;
    EXPECT_EQ(step.layers[1].attention_mass.size(), step.attention == "refresh" ? std::size(kMassFractions) : 0u);
    EXPECT_TRUE(step.layers[0].attention_mass.empty());
    for (const LayerRecord& layer : step.layers) {
      EXPECT_TRUE(std::is_sorted(layer.attention_mass.begin(), layer.attention_mass.end()));
      EXPECT_EQ(layer.attention_change < 0.0, i == 0);
    }
    if (step.attention == "sparse" && step.mlp == "select") {
      EXPECT_LT(step.multiply_adds, 0.8 * step.dense_multiply_adds);
    }
  }
  // Random weights attend to everything alike: far from exact, but the cache must make it close.
  const double error = relative_error(recorder.latents.back(), dense_recorder.latents.back());
  EXPECT_GT(error, 0.0);
  EXPECT_LT(error, 0.1);
}

TEST_F(SparseGeneration, TextWithAnMlpOfItsOwnIsSparseUnlessTheConfigSaysOtherwise) {
  const auto pipeline = load_model();
  const auto run = [&](const char* include_text) {
    Recorder recorder;
    const std::string sparsity =
        config("attn: {is_enabled: false}\nmlp: {top_keys: 0.25, random_keys: 0.0, first_n_dense_layers: 0" +
               std::string(include_text) + "}\n");
    return pipeline->generate(request(144, 80, 3, sparsity), recorder);
  };
  const GenerateResult by_default = run(""), sparse = run(", include_text: true"), dense = run(", include_text: false");
  const auto kept = [](const GenerateResult& result, size_t layer) { return result.steps[1].layers[layer].mlp_kept; };
  // Two double blocks, then single ones, where text and image have one MLP.
  for (size_t layer = 0; layer < 5; ++layer) {
    EXPECT_NEAR(kept(sparse, layer), 0.25, 0.01) << layer;
    EXPECT_DOUBLE_EQ(kept(by_default, layer), kept(sparse, layer)) << layer;
    if (layer < 2) {
      EXPECT_GT(kept(dense, layer), kept(sparse, layer) + 0.05) << layer;
    } else {
      EXPECT_DOUBLE_EQ(kept(dense, layer), kept(sparse, layer)) << layer;
    }
  }
  EXPECT_LT(sparse.steps[1].multiply_adds, dense.steps[1].multiply_adds);
  EXPECT_DOUBLE_EQ(sparse.steps[1].dense_multiply_adds, dense.steps[1].dense_multiply_adds);
}

TEST_F(SparseGeneration, SkipsReuseTheLastHiddenStates) {
  const auto pipeline = load_model();
  const std::string listed = config(
      "attn: {is_enabled: false}\nmlp: {is_enabled: false}\npatchify: {is_enabled: false}\n"
      "step_caching: {is_enabled: true, skip_step_schedule: [3, 5, 6]}\n");
  Recorder dense_recorder, recorder;
  const GenerateResult dense = pipeline->generate(request(64, 64, 8, ""), dense_recorder);
  const GenerateResult skipping = pipeline->generate(request(64, 64, 8, listed), recorder);
  for (size_t i = 0; i < 8; ++i) {
    const bool skipped = i == 3 || i == 5 || i == 6;
    EXPECT_EQ(skipping.steps[i].attention, skipped ? "skip" : "dense") << i;
    EXPECT_EQ(skipping.steps[i].multiply_adds == 0.0, skipped) << i;
    EXPECT_DOUBLE_EQ(skipping.steps[i].dense_multiply_adds, dense.steps[i].multiply_adds) << i;
    EXPECT_EQ(recorder.latents[i] == dense_recorder.latents[i], i < 3) << i;
  }
  EXPECT_LT(relative_error(recorder.latents.back(), dense_recorder.latents.back()), 0.3);
}

TEST_F(SparseGeneration, AdaptiveCachingFollowsItsThreshold) {
  const auto pipeline = load_model();
  const auto skips = [&](const std::string& threshold) {
    Recorder recorder;
    const GenerateResult result = pipeline->generate(
        request(64, 64, 12,
                config("attn: {is_enabled: false}\nmlp: {is_enabled: false}\npatchify: {is_enabled: false}\n"
                       "step_caching: {is_enabled: true, mode: adaptive, threshold: " +
                       threshold + "}\n")),
        recorder);
    EXPECT_NE(result.steps.front().attention, "skip");
    EXPECT_NE(result.steps.back().attention, "skip");
    int count = 0;
    for (const StepRecord& step : result.steps) {
      count += step.attention == "skip";
      // Without two runs there is no estimate, and nothing is skipped.
      if (step.attention == "skip") {
        EXPECT_GE(step.index, 2);
        EXPECT_LT(step.movement, std::stod(threshold));
      }
    }
    return count;
  };
  EXPECT_EQ(skips("0"), 0);
  EXPECT_EQ(skips("10"), 9);
}

TEST_F(SparseGeneration, ASkippedChoiceOfFeaturesIsMadeLater) {
  const auto pipeline = load_model();
  // Step 11 reuses features on every odd step; step 10, the first sparse one, is skipped.
  Recorder recorder;
  const GenerateResult result = pipeline->generate(
      request(64, 64, 14,
              config("attn: {is_enabled: false}\nmlp: {is_enabled: true, top_keys: 0.3, first_n_dense_layers: 0, "
                     "full_step_schedule: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}\n"
                     "step_caching: {is_enabled: true, skip_step_schedule: [10]}\n")),
      recorder);
  EXPECT_EQ(result.steps[10].mlp, "skip");
  EXPECT_EQ(result.steps[11].mlp, "select");
  const GenerateResult adaptive = pipeline->generate(
      request(64, 64, 14,
              config("attn: {is_enabled: false}\nmlp: {is_enabled: true, top_keys: 0.3, first_n_dense_layers: 0, "
                     "full_step_schedule: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}\n"
                     "step_caching: {is_enabled: true, mode: adaptive, threshold: 0.12}\n")),
      recorder);
  EXPECT_EQ(adaptive.steps.size(), 14u);
}

TEST_F(SparseGeneration, RefusesWhatDoesNotFit) {
  const auto pipeline = load_model();
  const auto fails = [&](const std::string& sparsity, ErrorCode code) {
    try {
      pipeline->validate(request(64, 64, 4, sparsity));
      ADD_FAILURE() << sparsity << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
    }
  };
  fails("no-such-preset", ErrorCode::kInvalidArgument);
  fails("/no/such/file.yml", ErrorCode::kNotFound);
  fails(config("attn: {top_keys: 2}"), ErrorCode::kInvalidConfig);
  fails(config("attn: {local_voxels: 3}\nmlp: {is_enabled: false}\n"), ErrorCode::kInvalidConfig);
}

}  // namespace
}  // namespace chipmunk
