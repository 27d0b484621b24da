#include "progress_printer.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

/// What a person sees of weights on their way to a GPU.
namespace chipmunk::cli {
namespace {

constexpr size_t kGiB = size_t{1} << 30;

std::string shown(ProgressPrinter::Options options, const std::vector<LoadReport>& reports) {
  ::testing::internal::CaptureStderr();
  {
    ProgressPrinter printer(std::move(options));
    for (const LoadReport& report : reports) printer.on_loading(report);
  }
  return ::testing::internal::GetCapturedStderr();
}

TEST(LoadingProgress, IsABarOnATerminal) {
  EXPECT_EQ(shown({.quiet = false, .terminal = true, .preview_path = {}},
                  {{6 * kGiB, 24 * kGiB, 2000.0, false}, {24 * kGiB, 24 * kGiB, 6000.0, true}}),
            "\r[######..................] weights: 6.00 GiB of 24.00 GiB, 3.00 GiB/s\033[K"
            "\r[########################] weights: 24.00 GiB of 24.00 GiB, 4.00 GiB/s\033[K\n");
}

TEST(LoadingProgress, AnErrorStartsALineOfItsOwn) {
  EXPECT_TRUE(shown({.quiet = false, .terminal = true, .preview_path = {}}, {{kGiB, 24 * kGiB, 500.0, false}})
                  .ends_with("\033[K\n"));
}

TEST(LoadingProgress, IsALineEveryFewSecondsElsewhere) {
  std::vector<LoadReport> reports;
  for (size_t i = 1; i <= 12; ++i) reports.push_back({i * kGiB, 12 * kGiB, 1000.0 * static_cast<double>(i), false});
  reports.push_back({12 * kGiB, 12 * kGiB, 12'000.0, true});
  // The next load starts afresh.
  reports.push_back({kGiB, 2 * kGiB, 5500.0, false});
  reports.push_back({2 * kGiB, 2 * kGiB, 8000.0, true});
  EXPECT_EQ(shown({}, reports),
            "weights: 5.00 GiB of 12.00 GiB, 1.00 GiB/s\n"
            "weights: 10.00 GiB of 12.00 GiB, 1.00 GiB/s\n"
            "weights: 12.00 GiB of 12.00 GiB, 1.00 GiB/s\n"
            "weights: 1.00 GiB of 2.00 GiB, 186.18 MiB/s\n"
            "weights: 2.00 GiB of 2.00 GiB, 256.00 MiB/s\n");
}

TEST(LoadingProgress, IsNothingWhenQuiet) {
  for (const bool terminal : {false, true}) {
    EXPECT_EQ(shown({.quiet = true, .terminal = terminal, .preview_path = {}},
                    {{kGiB, 2 * kGiB, 6000.0, false}, {2 * kGiB, 2 * kGiB, 9000.0, true}}),
              "");
  }
}

TEST(LoadingProgress, IsRememberedWhenComplete) {
  ProgressPrinter printer({.quiet = true, .terminal = false, .preview_path = {}});
  EXPECT_EQ(printer.loaded().total_bytes, 0u);
  printer.on_loading({kGiB, 2 * kGiB, 100.0, false});
  EXPECT_EQ(printer.loaded().total_bytes, 0u);
  printer.on_loading({2 * kGiB, 2 * kGiB, 150.0, true});
  EXPECT_EQ(printer.loaded().total_bytes, 2 * kGiB);
  EXPECT_EQ(printer.loaded().elapsed_ms, 150.0);
}

TEST(LoadingProgress, NoTimeIsNoDivisionByZero) {
  // Counted as a microsecond.
  EXPECT_EQ(shown({}, {{1 << 20, 1 << 20, 0.0, true}}), "weights: 1.00 MiB of 1.00 MiB, 976.56 GiB/s\n");
}

}  // namespace
}  // namespace chipmunk::cli
