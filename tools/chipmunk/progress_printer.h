#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <set>
#include <string>
#include <utility>

#include "chipmunk/pipeline.h"

namespace chipmunk::cli {

/// Shows a generation on stderr: a bar that is redrawn on a terminal, plain lines elsewhere; writes previews and asks
/// whether Ctrl-C was pressed.
class ProgressPrinter : public ProgressSink {
 public:
  struct Options {
    bool quiet = false;
    bool terminal = false;               ///< stderr is one
    std::filesystem::path preview_path;  ///< replaced with each preview
  };
  explicit ProgressPrinter(Options options) : options_(std::move(options)) {}
  ~ProgressPrinter() override { end_bar(); }  // so that an error starts a line of its own

  /// What the following lines are about, e.g. "prompt 2/5"; may be empty.
  void set_title(std::string title) { title_ = std::move(title); }
  /// The bar is drawn.
  bool terminal() const { return options_.terminal; }
  /// A line of its own, unless quiet.
  void line(const std::string& text);

  /// The last report of the last load that completed; all 0 where nothing was sent.
  const LoadReport& loaded() const { return loaded_; }

  void on_loading(const LoadReport& report) override;
  void on_stage(std::string_view stage) override;
  void on_step(const StepReport& report) override;
  void on_preview(const Frames& frames, int step_index) override;
  /// Printed even when quiet. What concerns no single prompt but the settings of a run is printed once.
  void on_notice(std::string_view message) override;
  bool cancelled() override;

 private:
  void end_bar();
  void draw(const std::string& text);

  Options options_;
  std::string title_, stage_;
  LoadReport loaded_;
  std::set<std::string, std::less<>> said_;
  bool bar_open_ = false;          // the cursor stands behind a bar
  int64_t loading_lines_due_ = 0;  // of the load under way, by its last report
  std::chrono::steady_clock::time_point stage_start_;
};

/// "4.5 s", "45 s", "3 min 05 s", "2 h 07 min".
std::string format_duration(double seconds);

}  // namespace chipmunk::cli
