#include "pipeline/flux_weights.h"

#include <exception>
#include <initializer_list>
#include <utility>
#include <vector>

#include "chipmunk/error.h"
#include "models/device_weights.h"
#include "pipeline/loading_progress.h"
#include "pipeline/memory_advice.h"

namespace chipmunk {
namespace {

using Groups = std::vector<WeightGroup>;

Groups joined(std::initializer_list<Groups> parts) {
  Groups all;
  for (const Groups& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

/// On the CPU nothing is ever moved.
Offload effective(const Context& context, Offload offload) {
  return context.device().kind == DeviceKind::kCpu ? Offload::kNone : offload;
}

Groups text_groups(FluxComponents& components) {
  return joined({weight_groups(components.clip), weight_groups(components.t5)});
}

Groups resident_groups(FluxComponents& components, Offload offload) {
  const Groups transformer = offload == Offload::kBlocks ? Groups{weight_group_around_blocks(components.transformer)}
                                                         : weight_groups(components.transformer);
  const Groups vae = weight_groups(components.vae);
  return offload == Offload::kNone ? joined({transformer, text_groups(components), vae}) : joined({transformer, vae});
}

Groups streamed_groups(FluxComponents& components, Offload offload) {
  return offload == Offload::kBlocks ? weight_groups_of_blocks(components.transformer) : Groups{};
}

}  // namespace

FluxWeights::FluxWeights(const Context& context, FluxComponents& components, Offload offload, ProgressSink& progress)
    : context_(context),
      offload_(effective(context, offload)),
      resident_(context, resident_groups(components, offload_)),
      text_(context, offload_ == Offload::kNone ? Groups{} : text_groups(components)) {
  const Groups streamed = streamed_groups(components, offload_);
  LoadingProgress loading(progress, resident_.bytes() + packed_bytes(streamed));
  try {
    resident_.upload(loading.next_upload());
    if (!streamed.empty()) blocks_.emplace(context, streamed, loading.next_upload());
    loading.finish(context);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kOutOfMemory) throw;
    throw with_memory_advice(error, context, {.stage = GenerationStage::kLoading, .offload = offload_});
  }
}

void FluxWeights::need_text_encoders(ProgressSink& progress) {
  if (text_.on_device()) return;
  LoadingProgress loading(progress, text_.bytes());
  text_.upload(loading.next_upload());
  loading.finish(context_);
}

void FluxWeights::text_encoders_done() { text_.release(); }

WeightStreamer* FluxWeights::blocks() { return blocks_ ? &*blocks_ : nullptr; }

void FluxWeights::blocks_done() {
  if (blocks_) blocks_->release();
}

void FluxWeights::release() noexcept {
  text_.release();
  try {
    blocks_done();
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch)
    // The device takes no commands any more, which the next generation will find.
  }
}

}  // namespace chipmunk
