#pragma once

#include <vector>

#include "chipmunk/pipeline.h"
#include "pipeline/flux_components.h"
#include "pipeline/flux_denoiser.h"
#include "pipeline/flux_weights.h"
#include "pipeline/latents.h"
#include "pipeline/memory_advice.h"

namespace chipmunk {

/// FLUX.1-dev and -schnell: text to image.
class FluxPipeline : public Pipeline {
 public:
  /// progress hears of the weights' way to the device. Throws kOutOfMemory, kCancelled.
  FluxPipeline(const Context& context, FluxComponents components, const WeightOptions& weights, ProgressSink& progress);
  /// All weights on the device, silently.
  FluxPipeline(const Context& context, FluxComponents components);

  GenerateResult generate(const GenerateRequest& request, ProgressSink& progress) override;
  void validate(const GenerateRequest& request) const override;
  Device device() const override { return context_.device(); }
  std::string_view architecture() const override { return "FluxPipeline"; }
  int native_width() const override { return native_size(); }
  int native_height() const override { return native_size(); }
  bool has_guidance_embedding() const override { return components_.transformer.config.guidance_embeds; }

  // The stages of generate(), one by one.

  /// T5 reads min(max_sequence_length, the tokenizer's model_max_length) tokens. Truncation is told to `progress`.
  /// The text encoders' weights, where offloaded, are on the device until generate() ends that stage.
  TextConditioning encode_prompt(const std::string& prompt, int max_sequence_length, ProgressSink& progress);
  DenoisingSchedule schedule(int steps, const LatentGeometry& geometry,
                             const SparsityConfig& sparsity = SparsityConfig::dense()) const;
  LatentGeometry geometry(int width, int height) const;
  /// Throws kCancelled when `progress` says so between steps. The records of inputs.record.
  std::vector<StepRecord> denoise(const DenoiseInputs& inputs, const DenoisingSchedule& schedule,
                                  ProgressSink& progress, const StepCallback& on_step);
  /// The decoder's input from packed latents, [B, height, width, channels].
  Tensor decoder_input(const Tensor& packed, const LatentGeometry& geometry) const;
  /// Decoded pictures in nominally [-1, 1], [B, H, W, 3].
  Tensor decode(const Tensor& decoder_input, bool tiled) const;

  const FluxComponents& components() const { return components_; }
  const Context& context() const { return context_; }

 private:
  int native_size() const { return static_cast<int>(components_.vae.config.sample_size); }
  int size_multiple() const;
  bool use_tiling(const GenerateRequest& request, int width, int height) const;
  Frames to_frames(const Tensor& image) const;
  StepCallback make_preview_callback(const GenerateRequest& request, const DenoiseInputs& inputs,
                                     ProgressSink& progress) const;

  int width_of(const GenerateRequest& request) const { return request.width != 0 ? request.width : native_width(); }
  int height_of(const GenerateRequest& request) const { return request.height != 0 ? request.height : native_height(); }
  /// *stage: where it is, for errors.
  GenerateResult run_stages(const GenerateRequest& request, ProgressSink& progress, GenerationStage* stage);
  /// Encoded prompts and noise.
  DenoiseInputs prepare(const GenerateRequest& request, ProgressSink& progress);

  /// Made once and kept: the first generation with sparse MLPs pays for it. Null where blocks are offloaded.
  const TransposedMlpWeights* transposed_mlp_weights(const SparsityConfig& sparsity);

  Context context_;
  FluxComponents components_;
  FluxWeights weights_;  // of components_
  TransposedMlpWeights transposed_mlp_weights_;
};

}  // namespace chipmunk
