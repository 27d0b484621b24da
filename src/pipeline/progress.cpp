#include "chipmunk/pipeline.h"

namespace chipmunk {

void ProgressSink::on_loading(const LoadReport&) {}
void ProgressSink::on_stage(std::string_view) {}
void ProgressSink::on_step(const StepReport&) {}
void ProgressSink::on_preview(const Frames&, int) {}
void ProgressSink::on_notice(std::string_view) {}
void ProgressSink::on_latents(int, const float*, size_t) {}
bool ProgressSink::cancelled() { return false; }

}  // namespace chipmunk
