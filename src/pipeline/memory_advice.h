#pragma once

#include <string>

#include "chipmunk/error.h"
#include "chipmunk/pipeline.h"
#include "core/context.h"

namespace chipmunk {

enum class GenerationStage { kLoading, kTextEncoding, kDenoising, kDecoding };

/// As ProgressSink::on_stage names it; "loading" for kLoading.
const char* stage_name(GenerationStage stage);

/// What memory was needed for.
struct MemoryDemand {
  GenerationStage stage = GenerationStage::kLoading;
  Offload offload = Offload::kNone;
  int batch_count = 1;
  bool decodes_whole = false;  ///< the decoder runs in this stage, not in tiles
};

/// The same kOutOfMemory with the stage in front and, behind, the options that make it need less.
Error with_memory_advice(const Error& error, const Context& context, const MemoryDemand& demand);

}  // namespace chipmunk
