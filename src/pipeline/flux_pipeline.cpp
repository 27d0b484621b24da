#include "pipeline/flux_pipeline.h"

#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "chipmunk/error.h"
#include "ops/elementwise.h"
#include "ops/image.h"
#include "ops/linear.h"
#include "pipeline/latent_preview.h"
#include "pipeline/memory_advice.h"

namespace chipmunk {
namespace {

using Clock = std::chrono::steady_clock;

// What CLIP was trained on; its position table may be larger.
constexpr int64_t kClipTokens = 77;
constexpr int64_t kMaxT5Tokens = 512;
constexpr int kMaxSide = 16384;
constexpr int kMaxSteps = 1000;
constexpr int kMaxBatch = 64;
// Above this many pixels the decoder's full-size feature maps take several gigabytes.
constexpr int64_t kAutoTilingPixels = int64_t{1024} * 1024;

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

void check_range(const std::string& name, double value, double min, double max) {
  if (!(value >= min && value <= max)) {
    const auto text = [](double number) {
      std::string digits = std::to_string(number);
      digits.erase(digits.find_last_not_of('0') + 1);
      if (digits.back() == '.') digits.pop_back();
      return digits;
    };
    throw Error(ErrorCode::kInvalidArgument,
                name + ": expected " + text(min) + " to " + text(max) + ", found " + text(value));
  }
}

void notice_truncation(const char* encoder, const FixedLengthTokens& tokens, ProgressSink& progress) {
  if (!tokens.truncated()) return;
  progress.on_notice("prompt truncated: " + std::string(encoder) + " reads " +
                     std::to_string(tokens.length_before_padding) + " of its " + std::to_string(tokens.full_length) +
                     " tokens");
}

SparsityConfig sparsity_of(const GenerateRequest& request, std::vector<std::string>* notices) {
  if (request.sparsity.empty()) return SparsityConfig::dense();
  const SparsityConfig config = SparsityConfig::load_or_preset(request.sparsity, notices);
  if (config.attn.is_enabled && config.attn.local_voxels > 0) {
    throw Error(ErrorCode::kInvalidConfig,
                "attn.local_voxels: expected 0, since this model makes images, found " +
                    std::to_string(config.attn.local_voxels),
                request.sparsity);
  }
  return config;
}

struct ReleaseAtEnd {
  FluxWeights& weights;
  ~ReleaseAtEnd() { weights.release(); }
};

}  // namespace

FluxPipeline::FluxPipeline(const Context& context, FluxComponents components, const WeightOptions& weights,
                           ProgressSink& progress)
    : context_(context), components_(std::move(components)), weights_(context, components_, weights, progress) {}

FluxPipeline::FluxPipeline(const Context& context, FluxComponents components)
    : FluxPipeline(context, std::move(components), WeightOptions{}, *std::make_unique<ProgressSink>()) {}

int FluxPipeline::size_multiple() const { return static_cast<int>(2 * components_.vae.config.spatial_factor()); }

LatentGeometry FluxPipeline::geometry(int width, int height) const {
  const int64_t factor = components_.vae.config.spatial_factor();
  return {components_.vae.config.latent_channels, height / factor, width / factor};
}

void FluxPipeline::validate(const GenerateRequest& request) const {
  const std::pair<const char*, int> sides[] = {{"width", request.width}, {"height", request.height}};
  for (const auto& [name, side] : sides) {
    if (side == 0) continue;
    const int multiple = size_multiple();
    if (side < multiple || side > kMaxSide || side % multiple != 0) {
      throw Error(ErrorCode::kInvalidArgument,
                  std::string(name) + ": expected a multiple of " + std::to_string(multiple) + " from " +
                      std::to_string(multiple) + " to " + std::to_string(kMaxSide) + ", found " + std::to_string(side));
    }
  }
  check_range("steps", request.steps, 1, kMaxSteps);
  check_range("guidance", static_cast<double>(request.guidance_scale), 0, 1000);
  check_range("true-cfg-scale", static_cast<double>(request.true_cfg_scale), 1, 1000);
  check_range("batch-count", request.batch_count, 1, kMaxBatch);
  check_range("max-sequence-length", request.max_sequence_length, 1, static_cast<double>(kMaxT5Tokens));
  check_range("preview-interval", request.preview_interval, 1, kMaxSteps);
  const SparsityConfig sparsity = sparsity_of(request, nullptr);
  schedule(request.steps, geometry(width_of(request), height_of(request)), sparsity);
  for (const std::string* prompt : {&request.prompt, &request.negative_prompt}) {
    components_.clip_tokenizer->encode(*prompt);  // throws kInvalidText
  }
}

TextConditioning FluxPipeline::encode_prompt(const std::string& prompt, int max_sequence_length,
                                             ProgressSink& progress) {
  const int64_t clip_length = std::min({kClipTokens, components_.clip.config.max_position_embeddings,
                                        components_.clip_tokenizer->info().model_max_length.value_or(kClipTokens)});
  const int64_t t5_length = std::min(static_cast<int64_t>(max_sequence_length),
                                     components_.t5_tokenizer->info().model_max_length.value_or(kMaxT5Tokens));
  const FixedLengthTokens clip = encode_to_length(*components_.clip_tokenizer, prompt, clip_length);
  const FixedLengthTokens t5 = encode_to_length(*components_.t5_tokenizer, prompt, t5_length);
  notice_truncation("CLIP", clip, progress);
  notice_truncation("T5", t5, progress);
  weights_.need_text_encoders(progress);
  TextConditioning conditioning;
  conditioning.pooled = components_.clip.forward(context_, {clip.ids}).pooled;
  conditioning.features = components_.t5.forward(context_, {t5.ids});
  return conditioning;
}

DenoisingSchedule FluxPipeline::schedule(int steps, const LatentGeometry& geometry,
                                         const SparsityConfig& sparsity) const {
  const std::vector<float> sigmas = flow_match_sigmas(components_.scheduler, steps, geometry.tokens());
  return sparsity == SparsityConfig::dense()
             ? DenoisingSchedule::dense(sigmas)
             : DenoisingSchedule::sparse(sigmas, sparsity, components_.transformer.num_layers());
}

const TransposedMlpWeights* FluxPipeline::transposed_mlp_weights(const SparsityConfig& sparsity) {
  // Of weights that come and go, a copy that stays would take back half of what was saved.
  if (weights_.blocks() != nullptr) return nullptr;
  components_.transformer.add_transposed_mlp_weights(context_, sparsity.mlp, &transposed_mlp_weights_);
  return &transposed_mlp_weights_;
}

std::vector<StepRecord> FluxPipeline::denoise(const DenoiseInputs& inputs, const DenoisingSchedule& schedule,
                                              ProgressSink& progress, const StepCallback& on_step) {
  for (const std::string& notice : schedule.notices()) progress.on_notice(notice);
  std::vector<StepRecord> records =
      denoise_flux(context_, {components_.transformer, transposed_mlp_weights(inputs.sparsity), weights_.blocks()},
                   inputs, schedule, progress, on_step);
  weights_.blocks_done();
  return records;
}

Tensor FluxPipeline::decoder_input(const Tensor& packed, const LatentGeometry& geometry) const {
  return unpack_latents(context_, packed, geometry, components_.vae.config);
}

Tensor FluxPipeline::decode(const Tensor& decoder_input, bool tiled) const {
  const AutoencoderKl& vae = components_.vae;
  return tiled ? vae.decode_tiled(context_, decoder_input, VaeTileSettings::native(vae.config))
               : vae.decode(context_, decoder_input);
}

bool FluxPipeline::use_tiling(const GenerateRequest& request, int width, int height) const {
  if (request.vae_tiling != VaeTiling::kAuto) return request.vae_tiling == VaeTiling::kOn;
  return static_cast<int64_t>(width) * height > kAutoTilingPixels;
}

Frames FluxPipeline::to_frames(const Tensor& image) const {
  const Tensor bytes = context_.to_host(ops::quantize_image(context_, image));
  Frames frames;
  frames.width = static_cast<int>(image.dim(2));
  frames.height = static_cast<int>(image.dim(1));
  frames.rgb.resize(bytes.bytes());
  std::memcpy(frames.rgb.data(), bytes.data(), bytes.bytes());
  return frames;
}

StepCallback FluxPipeline::make_preview_callback(const GenerateRequest& request, const DenoiseInputs& inputs,
                                                 ProgressSink& progress) const {
  if (request.preview == PreviewMode::kNone) return {};
  const bool full = request.preview == PreviewMode::kVae;
  const Linear colours = full ? Linear{} : fit_latent_colours(context_, components_.vae);
  const bool tiled = use_tiling(request, static_cast<int>(inputs.geometry.width) * size_multiple() / 2,
                                static_cast<int>(inputs.geometry.height) * size_multiple() / 2);
  return [this, full, colours, tiled, &inputs, &progress, interval = request.preview_interval](const Step& step,
                                                                                               const Tensor& velocity) {
    if ((step.index + 1) % interval != 0) return;
    // The clean latents that this velocity points at: x0 = x - sigma v.
    const Tensor latents = inputs.latents.slice(0, 0, 1);
    const Tensor clean = context_.empty(latents.shape(), DType::kF32);
    ops::axpby_into(context_, 1.0f, latents, -step.sigma_next, velocity.slice(0, 0, 1), clean);
    const Tensor latent = decoder_input(clean, inputs.geometry);
    if (full) {
      progress.on_preview(to_frames(decode(latent, tiled)), step.index);
      return;
    }
    const Tensor rows = latent.reshape({-1, latent.dim(3)});
    const Tensor image = ops::linear(context_, rows, colours).reshape({1, latent.dim(1), latent.dim(2), 3});
    progress.on_preview(to_frames(image), step.index);
  };
}

GenerateResult FluxPipeline::generate(const GenerateRequest& request, ProgressSink& progress) {
  validate(request);
  GenerationStage stage = GenerationStage::kTextEncoding;
  try {
    // Whatever ends the generation, the device keeps nothing of it.
    const ReleaseAtEnd release{weights_};
    return run_stages(request, progress, &stage);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kOutOfMemory) throw;
    context_.runtime().trim();
    const bool decodes = stage == GenerationStage::kDecoding ||
                         (stage == GenerationStage::kDenoising && request.preview == PreviewMode::kVae);
    throw with_memory_advice(error, context_,
                             {.stage = stage,
                              .offload = weights_.offload(),
                              .batch_count = request.batch_count,
                              .decodes_whole = decodes && !use_tiling(request, width_of(request), height_of(request))});
  }
}

GenerateResult FluxPipeline::run_stages(const GenerateRequest& request, ProgressSink& progress,
                                        GenerationStage* stage) {
  const auto enter = [&](GenerationStage next) {
    check_cancelled(progress);
    *stage = next;
    progress.on_stage(stage_name(next));
  };
  context_.runtime().reset_peak();
  GenerateResult result;
  result.width = width_of(request);
  result.height = height_of(request);

  enter(GenerationStage::kTextEncoding);
  Clock::time_point start = Clock::now();
  const DenoiseInputs inputs = prepare(request, progress);
  context_.runtime().synchronize();
  result.text_ms = milliseconds_since(start);

  enter(GenerationStage::kDenoising);
  // The sparse MLP's weights are the model's, made on first use: no part of the time of a generation.
  transposed_mlp_weights(inputs.sparsity);
  start = Clock::now();
  result.steps = denoise(inputs, schedule(request.steps, inputs.geometry, inputs.sparsity), progress,
                         make_preview_callback(request, inputs, progress));
  result.denoise_ms = milliseconds_since(start);

  enter(GenerationStage::kDecoding);
  start = Clock::now();
  const bool tiled = use_tiling(request, result.width, result.height);
  for (int64_t i = 0; i < request.batch_count; ++i) {
    // One by one: the decoder's feature maps are what takes the most memory.
    const Tensor latent = decoder_input(inputs.latents.slice(0, i, i + 1), inputs.geometry);
    result.samples.push_back(to_frames(decode(latent, tiled)));
    check_cancelled(progress);
  }
  result.decode_ms = milliseconds_since(start);
  result.peak_memory_bytes = context_.runtime().memory().peak_bytes;
  return result;
}

DenoiseInputs FluxPipeline::prepare(const GenerateRequest& request, ProgressSink& progress) {
  DenoiseInputs inputs;
  inputs.geometry = geometry(width_of(request), height_of(request));
  inputs.prompt = encode_prompt(request.prompt, request.max_sequence_length, progress);
  if (request.true_cfg_scale > 1.0f) {
    inputs.negative_prompt = encode_prompt(request.negative_prompt, request.max_sequence_length, progress);
  }
  weights_.text_encoders_done();
  inputs.guidance_scale = request.guidance_scale;
  inputs.true_cfg_scale = request.true_cfg_scale;
  std::vector<std::string> notices;
  inputs.sparsity = sparsity_of(request, &notices);
  for (const std::string& notice : notices) progress.on_notice(notice);
  inputs.seed = static_cast<uint64_t>(request.seed);
  inputs.record = request.record;
  inputs.latents = packed_noise(context_, inputs.geometry, request.batch_count, static_cast<uint64_t>(request.seed));
  return inputs;
}

}  // namespace chipmunk
