#include "pipeline/memory_advice.h"

#include <utility>
#include <vector>

namespace chipmunk {
namespace {

std::vector<std::string> options_that_help(const Context& context, const MemoryDemand& demand) {
  std::vector<std::string> options;
  if (context.device().kind != DeviceKind::kCpu) {
    if (demand.offload == Offload::kNone) options.emplace_back("--offload text or blocks");
    if (demand.offload == Offload::kText) options.emplace_back("--offload blocks");
  }
  const bool has_latents = demand.stage == GenerationStage::kDenoising || demand.stage == GenerationStage::kDecoding;
  if (demand.decodes_whole) options.emplace_back("--vae-tiling");
  if (has_latents) options.emplace_back("a smaller --width and --height");
  // Pictures are decoded one by one.
  if (demand.stage == GenerationStage::kDenoising && demand.batch_count > 1) {
    options.emplace_back("a smaller --batch-count");
  }
  if (context.runtime().memory().limit_bytes != 0) options.emplace_back("a higher memory limit");
  return options;
}

}  // namespace

const char* stage_name(GenerationStage stage) {
  switch (stage) {
    case GenerationStage::kLoading: return "loading";
    case GenerationStage::kTextEncoding: return "text encoding";
    case GenerationStage::kDenoising: return "denoising";
    case GenerationStage::kDecoding: return "decoding";
  }
  return "?";
}

Error with_memory_advice(const Error& error, const Context& context, const MemoryDemand& demand) {
  std::string advice;
  for (const std::string& option : options_that_help(context, demand)) {
    advice += (advice.empty() ? "; what helps: " : ", ") + option;
  }
  return Error(ErrorCode::kOutOfMemory, error.what() + advice, stage_name(demand.stage));
}

}  // namespace chipmunk
