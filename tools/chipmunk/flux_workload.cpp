#include "flux_workload.h"

#include "models/flux_rope.h"

namespace chipmunk::cli {
namespace {

constexpr double kRopeTheta = 10000.0;
constexpr float kTimestep = 0.5f, kGuidance = 3.5f;
/// Latents of a patch, which is a token.
constexpr int64_t kPatchLatents = 4;

}  // namespace

FluxInputs FluxWorkload::inputs(int which) const {
  return {latents[which], prompt.features, prompt.pooled, {kTimestep}, {kGuidance}};
}

FluxWorkload make_flux_workload(RandomTensors& random, const FluxConfig& config, int64_t latent_height,
                                int64_t latent_width, int64_t text_tokens) {
  const Context& context = random.context();
  const DType dtype = context.activation_dtype();
  FluxWorkload workload;
  workload.model = random_flux(random, config);
  workload.geometry = {config.in_channels / kPatchLatents, latent_height, latent_width};
  for (Tensor& latents : workload.latents) {
    latents = random.normal({1, workload.geometry.tokens(), config.in_channels}, dtype, 1.0f);
  }
  workload.prompt = {random.normal({1, text_tokens, config.joint_attention_dim}, dtype, 1.0f),
                     random.normal({1, config.pooled_projection_dim}, dtype, 1.0f)};
  workload.rope = make_rope_tables(
      context, flux_positions(text_tokens, workload.geometry.grid_height(), workload.geometry.grid_width()),
      config.axes_dims_rope, kRopeTheta);
  return workload;
}

}  // namespace chipmunk::cli
