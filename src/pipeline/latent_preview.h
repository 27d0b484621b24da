#pragma once

#include "models/autoencoder_kl.h"

namespace chipmunk {

/// A linear map [3, latent channels] from a latent, as the decoder takes it, to the colour that it decodes to: previews
/// without the decoder. It is fitted to this autoencoder: plain colours are encoded, and a ridge regression takes the
/// latents back to them.
Linear fit_latent_colours(const Context& context, const AutoencoderKl& vae);

}  // namespace chipmunk
