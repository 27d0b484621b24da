#pragma once

#include <functional>
#include <vector>

#include "chipmunk/pipeline.h"
#include "models/flux_transformer.h"
#include "pipeline/latents.h"
#include "sparse/config.h"
#include "sparse/schedule.h"

namespace chipmunk {

/// A prompt as the transformer reads it.
struct TextConditioning {
  Tensor features;  ///< T5's, [1, tokens, joint_attention_dim]
  Tensor pooled;    ///< CLIP's, [1, pooled_projection_dim]
};

/// A transformer with what its forwards need besides (see ForwardOptions).
struct DenoiserModel {
  const FluxTransformer& transformer;
  const TransposedMlpWeights* transposed_mlps = nullptr;
  WeightStreamer* weights = nullptr;
};

/// What the denoising loop works on.
struct DenoiseInputs {
  Tensor latents;  ///< packed f32 noise, [B, tokens, channels] in raster order; overwritten with the result
  LatentGeometry geometry;
  TextConditioning prompt;
  TextConditioning negative_prompt;  ///< empty tensors without true guidance
  float guidance_scale = 0.0f, true_cfg_scale = 1.0f;
  SparsityConfig sparsity = SparsityConfig::dense();
  uint64_t seed = 0;    ///< of the method's random choices
  bool record = false;  ///< collect StepRecords
};

/// Called after each step with its velocity [B, tokens, channels] in raster order; latents hold the step's result.
using StepCallback = std::function<void(const Step& step, const Tensor& velocity)>;

/// Runs every step of the schedule: transformer (or, on skipped steps, its last hidden states), guidance, Euler update.
/// Throws kCancelled when `progress` says so between steps.
std::vector<StepRecord> denoise_flux(const Context& context, const DenoiserModel& model, const DenoiseInputs& inputs,
                                     const DenoisingSchedule& schedule, ProgressSink& progress,
                                     const StepCallback& on_step);

/// Throws kCancelled if `progress` says so.
void check_cancelled(ProgressSink& progress);

}  // namespace chipmunk
