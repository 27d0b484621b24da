#pragma once

#include <optional>

#include "chipmunk/pipeline.h"
#include "models/block_streamer.h"
#include "models/offloadable_weights.h"
#include "pipeline/flux_components.h"

namespace chipmunk {

struct WeightOptions {
  Offload offload = Offload::kNone;
  bool fp8 = false;  ///< see LoadOptions
};

/// Where the weights of a FLUX model are: brings them to the device and, offloaded, away again. On the CPU they stay in
/// the mapped files, but for those that fp8 quantises.
class FluxWeights {
 public:
  /// Uploads what stays on the device. The components must stay in their place. Throws kOutOfMemory, kCancelled.
  FluxWeights(const Context& context, FluxComponents& components, const WeightOptions& options, ProgressSink& progress);
  FluxWeights(const FluxWeights&) = delete;
  FluxWeights& operator=(const FluxWeights&) = delete;

  /// The text encoders' weights are on the device afterwards. Throws kOutOfMemory, kCancelled.
  void need_text_encoders(ProgressSink& progress);
  /// Everything that uses them is queued.
  void text_encoders_done();
  /// What the transformer's forward is to be told of its blocks; null where all of them stay on the device.
  WeightStreamer* blocks();
  /// No more forwards of this generation.
  void blocks_done();
  /// Both, however a generation ended.
  void release() noexcept;
  Offload offload() const { return offload_; }

 private:
  Context context_;
  Offload offload_;
  OffloadableWeights resident_, text_;
  std::optional<BlockStreamer> blocks_;
};

}  // namespace chipmunk
