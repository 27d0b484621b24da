#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "chipmunk/error.h"
#include "chipmunk/pipeline.h"
#include "cli/program.h"
#include "cli/workbench.h"
#include "io/png.h"

namespace chipmunk::testing {
namespace {

/// Cancels after two steps.
class Impatient : public ProgressSink {
 public:
  void on_step(const StepReport&) override { ++steps_; }
  bool cancelled() override { return steps_ >= 2; }

 private:
  int steps_ = 0;
};

TEST(SparseProcesses, GenerationsInOneProcessEqualOneEachSlow) {
  const Workbench bench;
  const std::string both = (bench.folder() / "both.yml").string(), merge = (bench.folder() / "merge.yml").string();
  write_text(both,
             "attn: {top_keys: 0.2, random_keys: 0.05, full_step_every: 3, first_n_dense_layers: 0}\n"
             "mlp: {top_keys: 0.3, full_step_every: 4, first_n_dense_layers: 1}\n"
             "step_caching: {mode: adaptive, threshold: 0.2}\n");
  write_text(merge,
             "attn: {top_keys: 0.3, should_compress_indices: false, combine: merge, first_n_dense_layers: 1}\n"
             "mlp: {top_keys: 0.4, first_n_dense_layers: 0}\n");
  std::vector<GenerateRequest> requests;
  for (int i = 0; i < 20; ++i) {
    GenerateRequest request;
    request.prompt = "a photo of a cat";
    request.sparsity = i % 4 == 3 ? std::string() : i % 2 == 0 ? both : merge;
    request.width = 48 + 16 * (i % 5);
    request.height = 64 + 16 * (i % 3);
    request.steps = 3 + i % 6;
    request.seed = i;
    request.true_cfg_scale = i % 7 == 0 ? 2.0f : 1.0f;
    requests.push_back(request);
  }
  LoadOptions options;
  options.files.model = bench.model();
  options.threads = 2;
  const auto pipeline = Pipeline::load(options);
  for (size_t i = 0; i < requests.size(); ++i) {
    const GenerateRequest& request = requests[i];
    if (i == 9) {
      Impatient impatient;
      EXPECT_THROW(pipeline->generate(requests[8], impatient), Error);
    }
    ProgressSink progress;
    const GenerateResult together = pipeline->generate(request, progress);
    const std::string path = (bench.output() / (std::to_string(i) + ".png")).string();
    std::vector<std::string> arguments = {"generate",
                                          "-m",
                                          bench.model().string(),
                                          "-p",
                                          request.prompt,
                                          "--steps",
                                          std::to_string(request.steps),
                                          "-W",
                                          std::to_string(request.width),
                                          "-H",
                                          std::to_string(request.height),
                                          "-s",
                                          std::to_string(request.seed),
                                          "--true-cfg-scale",
                                          request.true_cfg_scale > 1.0f ? "2" : "1",
                                          "--threads",
                                          "2",
                                          "-o",
                                          path};
    if (!request.sparsity.empty()) arguments.insert(arguments.end(), {"--sparsity", request.sparsity});
    const ProgramResult alone = run_chipmunk(arguments);
    ASSERT_EQ(alone.exit_code, 0) << alone.err;
    EXPECT_EQ(together.samples[0].rgb, read_png(path).pixels) << "generation " << i;
  }
}

}  // namespace
}  // namespace chipmunk::testing
