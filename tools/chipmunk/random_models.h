#pragma once

#include <cstdint>
#include <map>
#include <utility>

#include "models/autoencoder_kl.h"
#include "models/clip_text.h"
#include "models/flux_transformer.h"
#include "models/t5_encoder.h"

/// Models with random weights that never exist on the host: speed depends on their sizes and on ordinary numbers in
/// them, not on what was learnt.
namespace chipmunk::cli {

/// Normal values made on the device: a few million are drawn once, and tensors repeat them from ever new positions.
class RandomTensors {
 public:
  /// The same seed and the same calls give the same values.
  RandomTensors(const Context& context, uint64_t seed);

  /// mean + scale * normal values of any floating dtype.
  Tensor normal(const Dims& shape, DType dtype, float scale, float mean = 0.0f);
  const Context& context() const { return context_; }

 private:
  const Tensor& pool(float scale, float mean);

  const Context& context_;
  Tensor normals_;
  std::map<std::pair<float, float>, Tensor> pools_;  // by scale and mean
  int64_t position_ = 0;
};

/// bf16 weights of 1 / sqrt(fan in), norms near one.
FluxTransformer random_flux(RandomTensors& random, const FluxConfig& config);
T5Encoder random_t5(RandomTensors& random, const T5Config& config);
ClipTextModel random_clip(RandomTensors& random, const ClipTextConfig& config);
/// The decoder alone, with neither encoder nor quantisation convolutions, as FLUX.1 decodes.
AutoencoderKl random_vae_decoder(RandomTensors& random, const AutoencoderConfig& config);

}  // namespace chipmunk::cli
