#pragma once

#include <string>
#include <vector>

#include "chipmunk/pipeline.h"
#include "evaluation/score.h"
#include "io/model_folder.h"
#include "pipeline/flow_match.h"
#include "sparse/schedule.h"
#include "sparse/work_estimate.h"

/// What --json prints: one object each, indented, with a final newline. Text that is not UTF-8 (file names may be
/// anything) has the replacement character in place of the wrong bytes.
namespace chipmunk::cli {

/// One written picture.
struct PictureReport {
  std::string path, prompt, negative_prompt;
  int64_t seed = 0;
  int width = 0, height = 0, steps = 0;
  float guidance = 0.0f, true_cfg_scale = 1.0f;
  std::string sparsity;  ///< as it was asked for; empty for dense
  /// Of the forward that made it, which may have made others of the batch too.
  double text_ms = 0.0, denoise_ms = 0.0, decode_ms = 0.0;
  size_t peak_memory_bytes = 0;
};

struct GenerateReport {
  std::string model, architecture, device;
  bool fp8 = false;
  std::vector<PictureReport> pictures;
  double load_ms = 0.0, total_ms = 0.0;
  LoadReport weights;              ///< on their way to the device, a part of load_ms; all 0 on the CPU
  size_t peak_memory_bytes = 0;    ///< of the allocator
  size_t peak_resident_bytes = 0;  ///< of the process, mapped weights included
};

struct ScheduleReport {
  std::string model;
  int width = 0, height = 0;
  int64_t image_tokens = 0;
  FlowMatchConfig config;
  std::vector<Step> steps;
  /// With --sparsity; the estimates are one a step.
  std::string sparsity;
  int64_t text_tokens = 0;
  std::vector<StepEstimate> estimates;
};

std::string to_json(const GenerateReport& report);
std::string to_json(const ModelDescription& model, bool with_tensors);
std::string to_json(const ScheduleReport& report);
/// Fractions, null where nothing was counted, with their 95 % intervals and counts.
std::string to_json(const Score& score);

}  // namespace chipmunk::cli
