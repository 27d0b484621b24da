#include "pipeline/flux_denoiser.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "chipmunk/error.h"
#include "ops/elementwise.h"
#include "sparse/step_caching.h"
#include "sparse/token_order.h"
#include "sparse/transformer_state.h"

namespace chipmunk {
namespace {

using Clock = std::chrono::steady_clock;

/// One sample repeated for the whole batch.
Tensor repeat_sample(const Context& context, const Tensor& sample, int64_t batch) {
  return batch == 1 ? sample : ops::to_dense(context, sample.expand(0, batch), sample.dtype());
}

/// Brings image tokens into the order in which a group of query rows is a compact patch, and back.
class TokenPermutation {
 public:
  TokenPermutation(const Context& context, const SparsityConfig::Patchify& config, const LatentGeometry& geometry) {
    if (!config.is_enabled) return;
    order_ = TokenOrder::image_patches(geometry.grid_height(), geometry.grid_width(), config.chunk_size_1,
                                       config.chunk_size_2);
    to_patches_ = upload(context, order_.order);
    to_raster_ = upload(context, order_.inverse);
  }

  /// x [B, T, C] in the order of patches, in the dtype of activations.
  Tensor to_patches(const Context& context, const Tensor& x) const { return gather(context, x, to_patches_); }
  Tensor to_raster(const Context& context, const Tensor& x) const { return gather(context, x, to_raster_); }

  /// Positions [tokens][3] of text, then image tokens, with the image's rows in the order of patches.
  std::vector<double> arrange(const std::vector<double>& positions, int64_t text_tokens) const {
    if (order_.order.empty()) return positions;
    constexpr size_t kAxes = 3;
    const TokenOrder order = order_.surrounded_by(text_tokens, 0);
    std::vector<double> arranged;
    arranged.reserve(positions.size());
    for (int32_t token : order.order) {
      const auto from = positions.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(token) * kAxes);
      arranged.insert(arranged.end(), from, from + kAxes);
    }
    return arranged;
  }

 private:
  static Tensor upload(const Context& context, const std::vector<int32_t>& values) {
    const Tensor host = make_host_tensor({static_cast<int64_t>(values.size())}, DType::kI32);
    std::memcpy(host.data(), values.data(), values.size() * sizeof(int32_t));
    return context.to_device(host);
  }

  static Tensor gather(const Context& context, const Tensor& x, const Tensor& indices) {
    if (indices.empty()) return ops::to_dense(context, x, context.activation_dtype());
    Tensor result = context.empty(x.shape());
    for (int64_t b = 0; b < x.dim(0); ++b) {
      ops::copy_into(context, ops::embedding(context, indices, x.select(0, b)), result.select(0, b));
    }
    return result;
  }

  TokenOrder order_;
  Tensor to_patches_, to_raster_;
};

/// One conditioning with its rotary tables, and what some steps make of it.
struct Branch {
  Tensor features, pooled;
  RopeTables rope;
  FluxModulation modulation;
};

/// Steps whose modulations are computed at once: of FLUX.1-dev's, 2 MB each.
constexpr size_t kModulatedSteps = 64;

std::vector<Branch> make_branches(const Context& context, const FluxConfig& config, const DenoiseInputs& inputs,
                                  const TokenPermutation& permutation) {
  const int64_t batch = inputs.latents.dim(0);
  std::vector<Branch> branches;
  for (const TextConditioning* text : {&inputs.prompt, &inputs.negative_prompt}) {
    if (text->features.empty()) continue;
    const int64_t text_tokens = text->features.dim(1);
    const std::vector<double> positions =
        flux_positions(text_tokens, inputs.geometry.grid_height(), inputs.geometry.grid_width());
    branches.push_back(
        {repeat_sample(context, text->features, batch),
         repeat_sample(context, text->pooled, batch),
         make_rope_tables(context, permutation.arrange(positions, text_tokens), config.axes_dims_rope, 10000.0),
         {}});
  }
  return branches;
}

/// Makes room for the modulations of the steps from `first` on.
void begin_modulation(const Context& context, const FluxTransformer& transformer, const std::vector<Step>& steps,
                      size_t first, float guidance, std::vector<Branch>* branches) {
  std::vector<float> sigmas;
  for (size_t i = first; i < std::min(first + kModulatedSteps, steps.size()); ++i) sigmas.push_back(steps[i].sigma);
  for (Branch& branch : *branches) {
    branch.modulation = {};
    branch.modulation = transformer.modulation(context, sigmas, guidance, branch.pooled);
  }
}

std::span<const float> values_of(const Tensor& host) {
  return {host.data_as<float>(), static_cast<size_t>(host.numel())};
}

/// f32 values in host memory.
Tensor host_values(const Context& context, const Tensor& tensor) {
  return context.to_host(ops::to_dense(context, tensor, DType::kF32));
}

}  // namespace

void check_cancelled(ProgressSink& progress) {
  if (progress.cancelled()) throw Error(ErrorCode::kCancelled, "stopped on request");
}

std::vector<StepRecord> denoise_flux(const Context& context, const DenoiserModel& model, const DenoiseInputs& inputs,
                                     const DenoisingSchedule& schedule, ProgressSink& progress,
                                     const StepCallback& on_step) {
  const FluxTransformer& transformer = model.transformer;
  const Tensor& latents = inputs.latents;
  const size_t samples = static_cast<size_t>(latents.dim(0));
  const TokenPermutation permutation(context, inputs.sparsity.patchify, inputs.geometry);
  std::vector<Branch> branches = make_branches(context, transformer.config, inputs, permutation);
  std::unique_ptr<SparseTransformerState> sparse;
  if (inputs.record || inputs.sparsity != SparsityConfig::dense()) {
    sparse = std::make_unique<SparseTransformerState>(
        schedule, SparseTransformerState::Options{inputs.sparsity, transformer.num_layers(),
                                                  static_cast<int>(branches.size()), inputs.seed, inputs.record});
  }
  MovementEstimate movement;

  for (const Step& step : schedule.steps()) {
    check_cancelled(progress);
    const Clock::time_point start = Clock::now();
    const double sigma = static_cast<double>(step.sigma);
    const double expected = step.may_skip ? movement.expected(sigma) : 0.0;
    const bool skipped = step.may_skip && expected < inputs.sparsity.step_caching.threshold;
    if (sparse) {
      sparse->begin_step(step.index, skipped);
      if (step.may_skip) sparse->note_movement(expected);
    }
    const size_t modulated = static_cast<size_t>(step.index) % kModulatedSteps;
    if (modulated == 0) {
      begin_modulation(context, transformer, schedule.steps(), static_cast<size_t>(step.index), inputs.guidance_scale,
                       &branches);
    }
    const Tensor model_input = permutation.to_patches(context, latents);
    std::vector<Tensor> velocities;
    for (size_t i = 0; i < branches.size(); ++i) {
      const FluxInputs model_inputs = {model_input, branches[i].features, branches[i].pooled,
                                       std::vector<float>(samples, step.sigma),
                                       std::vector<float>(samples, inputs.guidance_scale)};
      ForwardOptions options;
      options.guidance_branch = static_cast<int>(i);
      options.sparse = sparse.get();
      options.transposed_mlps = model.transposed_mlps;
      options.weights = model.weights;
      options.modulation = &branches[i].modulation;
      options.modulation_step = static_cast<int64_t>(modulated);
      velocities.push_back(transformer.forward(context, model_inputs, branches[i].rope, options));
    }
    if (velocities.size() == 2) {
      ops::axpby_into(context, inputs.true_cfg_scale, velocities[0], 1.0f - inputs.true_cfg_scale, velocities[1],
                      velocities[0]);
    }
    const Tensor velocity = permutation.to_raster(context, velocities[0]);
    ops::axpby_into(context, step.sigma_next - step.sigma, velocity, 1.0f, latents, latents);
    context.runtime().synchronize();
    const bool adaptive =
        inputs.sparsity.step_caching.is_enabled && inputs.sparsity.step_caching.mode == StepCachingMode::kAdaptive;
    if (adaptive && !sparse->skips()) movement.observe(sigma, values_of(host_values(context, velocity)));
    if (on_step) on_step(step, velocity);
    if (progress.wants_latents()) {
      const Tensor host = host_values(context, latents);
      progress.on_latents(step.index, host.data_as<float>(), static_cast<size_t>(host.numel()));
    }
    progress.on_step({step.index, static_cast<int>(schedule.steps().size()), sigma,
                      std::chrono::duration<double, std::milli>(Clock::now() - start).count()});
  }
  return sparse ? sparse->records() : std::vector<StepRecord>();
}

}  // namespace chipmunk
