#pragma once

#include <chrono>
#include <cstddef>

#include "chipmunk/pipeline.h"
#include "core/context.h"
#include "models/weight_group.h"

namespace chipmunk {

/// Tells a sink of several uploads as of one, and asks it whether to go on.
class LoadingProgress {
 public:
  /// total_bytes: of all uploads. sink must live as long.
  LoadingProgress(ProgressSink& sink, size_t total_bytes);

  /// What the next upload reports to, which throws kCancelled if the sink says so. Valid as long as this object.
  UploadProgress next_upload();
  /// Waits until everything has arrived and makes the last report; none if there was nothing to send.
  void finish(const Context& context);

 private:
  void report(size_t done, bool complete);

  ProgressSink& sink_;
  size_t total_, before_ = 0, done_ = 0;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace chipmunk
