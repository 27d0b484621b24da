#include "progress_printer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "console.h"
#include "core/memory_text.h"
#include "interrupt.h"
#include "io/png.h"

namespace chipmunk::cli {
namespace {

constexpr int kBarCells = 24;
// Plain lines a run at most, so that a log stays short.
constexpr int kPlainLines = 10;
// Most loads are over before the first line is due; of a long one, these show that it goes on.
constexpr double kMsPerLoadingLine = 5000.0;

std::string make_bar(int64_t done, int64_t total) {
  const auto filled = static_cast<int>(done * kBarCells / std::max<int64_t>(total, 1));
  return "[" + std::string(static_cast<size_t>(filled), '#') +
         std::string(static_cast<size_t>(kBarCells - filled), '.') + "]";
}

void write_stderr(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

}  // namespace

std::string format_duration(double seconds) {
  if (seconds < 9.95) return fmt::format("{:.1f} s", std::max(seconds, 0.0));
  const auto whole = static_cast<int64_t>(std::llround(std::max(seconds, 0.0)));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
}

void ProgressPrinter::line(const std::string& text) {
  if (options_.quiet) return;
  end_bar();
  write_stderr(text + "\n");
}

void ProgressPrinter::on_loading(const LoadReport& report) {
  if (report.complete) loaded_ = report;
  if (options_.quiet) return;
  const double rate = static_cast<double>(report.done_bytes) / std::max(report.elapsed_ms * 1e-3, 1e-6);
  const std::string status = fmt::format("weights: {} of {}, {}/s", format_bytes(report.done_bytes),
                                         format_bytes(report.total_bytes), format_bytes(static_cast<size_t>(rate)));
  if (options_.terminal) {
    draw(make_bar(static_cast<int64_t>(report.done_bytes), static_cast<int64_t>(report.total_bytes)) + " " + status);
    if (report.complete) end_bar();
    return;
  }
  const auto lines_due = static_cast<int64_t>(report.elapsed_ms / kMsPerLoadingLine);
  if (report.complete || lines_due > loading_lines_due_) write_stderr(status + "\n");
  loading_lines_due_ = report.complete ? 0 : lines_due;
}

void ProgressPrinter::on_stage(std::string_view stage) {
  stage_ = (title_.empty() ? "" : title_ + ", ") + std::string(stage);
  stage_start_ = std::chrono::steady_clock::now();
  line(stage_);
}

void ProgressPrinter::on_step(const StepReport& report) {
  if (options_.quiet) return;
  const int done = report.index + 1;
  // The wall clock, and so previews too: what the user waits for.
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - stage_start_;
  const double seconds_per_step = elapsed.count() / done;
  const std::string status = fmt::format("step {}/{}, {:.2f} s/step, {} left", done, report.total, seconds_per_step,
                                         format_duration(seconds_per_step * (report.total - done)));
  if (options_.terminal) {
    draw(make_bar(done, report.total) + " " + status);
    if (done == report.total) end_bar();
    return;
  }
  const auto tenth = [&report](int steps) { return static_cast<int64_t>(steps) * kPlainLines / report.total; };
  if (tenth(done) != tenth(done - 1)) write_stderr(stage_ + ": " + status + "\n");
}

void ProgressPrinter::on_preview(const Frames& frames, int) {
  write_png(options_.preview_path, frames.width, frames.height, frames.rgb);
}

void ProgressPrinter::on_notice(std::string_view message) {
  const bool of_prompt = message.starts_with("prompt");
  if (!of_prompt && !said_.insert(std::string(message)).second) return;
  end_bar();
  print_notice(title_.empty() || !of_prompt ? std::string(message) : title_ + ": " + std::string(message));
}

bool ProgressPrinter::cancelled() { return interrupted(); }

void ProgressPrinter::draw(const std::string& text) {
  // Carriage return, text, clear what a longer bar left behind.
  write_stderr("\r" + text + "\033[K");
  bar_open_ = true;
}

void ProgressPrinter::end_bar() {
  if (bar_open_) write_stderr("\n");
  bar_open_ = false;
}

}  // namespace chipmunk::cli
