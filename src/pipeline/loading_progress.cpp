#include "pipeline/loading_progress.h"

#include "pipeline/flux_denoiser.h"

namespace chipmunk {

LoadingProgress::LoadingProgress(ProgressSink& sink, size_t total_bytes) : sink_(sink), total_(total_bytes) {}

UploadProgress LoadingProgress::next_upload() {
  before_ = done_;
  return [this](size_t done, size_t) {
    check_cancelled(sink_);
    done_ = before_ + done;
    report(done_, false);
  };
}

void LoadingProgress::finish(const Context& context) {
  if (total_ == 0) return;
  context.runtime().synchronize();
  report(total_, true);
}

void LoadingProgress::report(size_t done, bool complete) {
  const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start_;
  sink_.on_loading({done, total_, elapsed.count(), complete});
}

}  // namespace chipmunk
