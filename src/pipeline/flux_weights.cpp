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

BlockLinears block_linears(const WeightOptions& options) {
  return options.fp8 ? BlockLinears::kFp8 : BlockLinears::kStored;
}

Groups resident_groups(FluxComponents& components, const WeightOptions& options) {
  const Offload offload = options.offload;
  const Groups transformer = offload == Offload::kBlocks
                                 ? Groups{weight_group_around_blocks(components.transformer)}
                                 : weight_groups(components.transformer, block_linears(options));
  const Groups vae = weight_groups(components.vae);
  return offload == Offload::kNone ? joined({transformer, text_groups(components), vae}) : joined({transformer, vae});
}

Groups streamed_groups(FluxComponents& components, const WeightOptions& options) {
  return options.offload == Offload::kBlocks ? weight_groups_of_blocks(components.transformer, block_linears(options))
                                             : Groups{};
}

}  // namespace

FluxWeights::FluxWeights(const Context& context, FluxComponents& components, const WeightOptions& options,
                         ProgressSink& progress)
    : context_(context),
      offload_(effective(context, options.offload)),
      resident_(context, resident_groups(components, {offload_, options.fp8})),
      text_(context, offload_ == Offload::kNone ? Groups{} : text_groups(components)) {
  const Groups streamed = streamed_groups(components, {offload_, options.fp8});
  LoadingProgress loading(progress, resident_.bytes() + packed_bytes(context, streamed));
  try {
    if (options.fp8 && context.device().kind == DeviceKind::kCpu) quantize_on_host(context, components.transformer);
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
