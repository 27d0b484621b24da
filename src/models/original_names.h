#pragma once

#include "io/weight_map.h"

/// The original single-file layouts of FLUX.1 read under diffusers' names, without copying a weight: fused matrices
/// become row slices, 1x1 convolutions become matrices.
namespace chipmunk {

/// Whether the weights carry the names of the original flux1-*.safetensors (with or without a "model.diffusion_model."
/// prefix).
bool has_original_flux_names(const WeightMap& weights);

/// Defines diffusers' names for them and marks the original ones as used. norm_out.linear keeps the original order,
/// shift first. Names that belong to neither layout stay, to be reported as unused.
void define_diffusers_flux_names(WeightMap& weights);

/// The same for the VAE, ae.safetensors (with or without a "first_stage_model." or "vae." prefix).
bool has_original_vae_names(const WeightMap& weights);
void define_diffusers_vae_names(WeightMap& weights);

}  // namespace chipmunk
