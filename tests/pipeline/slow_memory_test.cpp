// Peak memory of a whole generation in a process of its own, on a checkpoint of more than 2 GiB.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <string>

#include "chipmunk/pipeline.h"
#include "support/synthetic_flux.h"

namespace chipmunk {
namespace {

namespace fs = std::filesystem;

/// What the generating process reports to its parent.
struct Report {
  size_t allocator_peak_bytes = 0;
  int width = 0;
};

/// Loads the model and generates one small picture; writes the report to the pipe and leaves.
[[noreturn]] void generate_in_child(const fs::path& model, int pipe_end) {
  LoadOptions options;
  options.files.model = model;
  GenerateRequest request;
  request.prompt = "a photo of a cat";
  request.width = request.height = 256;
  request.steps = 1;
  ProgressSink progress;
  const GenerateResult result = Pipeline::load(options)->generate(request, progress);
  const Report report{result.peak_memory_bytes, result.samples.at(0).width};
  const bool written = write(pipe_end, &report, sizeof(report)) == sizeof(report);
  _exit(written ? 0 : 1);
}

TEST(SlowMemory, PeakResidentIsTheWeightsAndTheAllocatorsPeak) {
  const fs::path folder = fs::temp_directory_path() / ("chipmunk_memory_" + std::to_string(getpid()));
  fs::remove_all(folder);
  test::write_synthetic_flux(CHIPMUNK_TEST_DATA "/golden/flux-tiny/model", folder, {});
  const size_t stored = test::stored_weight_bytes(folder);
  ASSERT_GE(stored, size_t{2} << 30);

  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) generate_in_child(folder, ends[1]);
  close(ends[1]);
  Report report;
  const bool received = read(ends[0], &report, sizeof(report)) == sizeof(report);
  close(ends[0]);
  int status = 0;
  rusage usage{};
  ASSERT_EQ(wait4(child, &status, 0, &usage), child);
  fs::remove_all(folder);
  ASSERT_TRUE(received && WIFEXITED(status) && WEXITSTATUS(status) == 0) << "the generating process failed";
  EXPECT_EQ(report.width, 256);

  const double resident = static_cast<double>(usage.ru_maxrss) * 1024.0;  // Linux reports KiB
  const double allowed = 1.1 * static_cast<double>(stored) + static_cast<double>(report.allocator_peak_bytes);
  std::printf("stored %.0f MiB, allocator's peak %.0f MiB, resident %.0f MiB, allowed %.0f MiB\n",
              static_cast<double>(stored) / 1048576.0, static_cast<double>(report.allocator_peak_bytes) / 1048576.0,
              resident / 1048576.0, allowed / 1048576.0);
  EXPECT_LE(resident, allowed);
  // The weights were really read: a step touches all of the transformer.
  EXPECT_GE(resident, 0.9 * static_cast<double>(stored));
}

}  // namespace
}  // namespace chipmunk
