#pragma once

#include "models/flux_transformer.h"
#include "pipeline/flux_denoiser.h"
#include "pipeline/latents.h"
#include "random_models.h"

namespace chipmunk::cli {

/// A FLUX transformer with random weights, and something for it to do.
struct FluxWorkload {
  FluxTransformer model;
  LatentGeometry geometry;
  TextConditioning prompt;
  Tensor latents[2];  ///< [1, tokens, in_channels] in the dtype of activations: of one step and of another
  RopeTables rope;    ///< of text, then image tokens in raster order

  FluxInputs inputs(int which) const;
};

FluxWorkload make_flux_workload(RandomTensors& random, const FluxConfig& config, int64_t latent_height,
                                int64_t latent_width, int64_t text_tokens);

/// The model with the linears that LoadOptions::fp8 means in f8_e4m3, quantised on the device; all else is shared.
FluxTransformer with_fp8_linears(const Context& context, const FluxTransformer& model);

/// Of all its weights.
size_t weight_bytes(FluxTransformer model);

}  // namespace chipmunk::cli
