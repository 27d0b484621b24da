#pragma once

#include <cstdint>

#include "core/context.h"
#include "models/autoencoder_kl.h"

/// Latents of FLUX: noise, and the two layouts between which the transformer and the VAE differ.
namespace chipmunk {

/// Size of a picture in latents and in the transformer's 2x2 patches.
struct LatentGeometry {
  int64_t channels;       ///< of the VAE's latents
  int64_t height, width;  ///< in latents; even

  int64_t grid_height() const { return height / 2; }
  int64_t grid_width() const { return width / 2; }
  int64_t tokens() const { return grid_height() * grid_width(); }
};

/// f32 noise [batch, tokens, 4 * channels] in packed form. Sample i is drawn for seed + i as [channels, height, width].
Tensor packed_noise(const Context& context, const LatentGeometry& geometry, int64_t batch, uint64_t seed);

/// Packed f32 latents [B, tokens, 4 * channels] as the decoder's input, channels-last [B, height, width, channels] in
/// the dtype of activations: z / scaling_factor + shift_factor.
Tensor unpack_latents(const Context& context, const Tensor& packed, const LatentGeometry& geometry,
                      const AutoencoderConfig& config);

}  // namespace chipmunk
