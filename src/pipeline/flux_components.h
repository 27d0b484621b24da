#pragma once

#include <memory>

#include "chipmunk/pipeline.h"
#include "pipeline/components.h"
#include "text/tokenizer.h"

namespace chipmunk {

/// The parts of a FLUX.1 model.
struct FluxComponents {
  std::unique_ptr<Tokenizer> clip_tokenizer, t5_tokenizer;
  ClipTextModel clip;
  T5Encoder t5;
  FluxTransformer transformer;
  AutoencoderKl vae;
  FlowMatchConfig scheduler;

  /// Reads all parts and checks that they fit together. Weights are bound to the mapped files; those of convolutions
  /// are on the context's device already. Throws what components.h throws.
  static FluxComponents load(const Context& context, const ModelFiles& files);
};

}  // namespace chipmunk
