#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "io/config.h"
#include "models/layers.h"

namespace chipmunk {

/// AutoencoderKL's settings, names as in diffusers' config.json.
struct AutoencoderConfig {
  int64_t in_channels = 3, out_channels = 3, latent_channels = 16;
  std::vector<int64_t> block_out_channels = {128, 256, 512, 512};
  int64_t layers_per_block = 2, norm_num_groups = 32;
  int64_t sample_size = 1024;  ///< the native side of an image in pixels
  double scaling_factor = 0.3611, shift_factor = 0.1159;
  bool use_quant_conv = true, use_post_quant_conv = true, mid_block_add_attention = true;

  /// Pixels per latent in each direction.
  int64_t spatial_factor() const { return int64_t{1} << (block_out_channels.size() - 1); }

  static AutoencoderConfig from_json(const JsonConfig& json);
};

/// silu(norm_1) -> conv_1 -> silu(norm_2) -> conv_2, plus the input.
struct VaeResnetBlock {
  ops::NormAffine norm_1, norm_2;
  Conv2d conv_1, conv_2;
  std::optional<Conv2d> shortcut;  // 1x1, where the number of channels changes
};

/// One head over all pixels.
struct VaeAttention {
  ops::NormAffine norm;
  ConcatLinear qkv;
  Linear out;
};

struct VaeMidBlock {
  VaeResnetBlock resnet_1, resnet_2;
  std::optional<VaeAttention> attention;
};

/// The resnet blocks of one resolution, and the step to the next one.
struct VaeStage {
  std::vector<VaeResnetBlock> resnets;
  std::optional<Conv2d> resample;
};

struct VaeCoder {
  Conv2d conv_in;
  VaeMidBlock mid;
  std::vector<VaeStage> stages;  // in the order they run
  ops::NormAffine norm_out;
  Conv2d conv_out;
};

/// The mean and log variance (clamped to [-30, 20]) of an encoded image: [B, h, w, latent_channels] views.
struct LatentDistribution {
  Tensor mean, logvar;
};

/// Overlapping tiles for images too large to decode at once, blended linearly; as diffusers' AutoencoderKL does it.
struct VaeTileSettings {
  int64_t sample_tile = 1024;  ///< side of a tile in pixels
  int64_t latent_tile = 128;   ///< the same in latents
  double overlap = 0.25;       ///< share of a tile that overlaps its neighbour

  static VaeTileSettings native(const AutoencoderConfig& config);
};

/// The image autoencoder of FLUX.1. Images and latents are channels-last.
struct AutoencoderKl {
  AutoencoderConfig config;
  VaeCoder encoder, decoder;
  std::optional<Conv2d> quant_conv, post_quant_conv;

  static AutoencoderKl bind(const Context& context, const AutoencoderConfig& config, const WeightScope& weights);

  /// latent: [B, h, w, latent_channels], unscaled (divided by scaling_factor and shifted). Returns
  /// [B, h * factor, w * factor, out_channels], nominally in [-1, 1].
  /// Observed names: conv_in, mid, up<i>.
  Tensor decode(const Context& context, const Tensor& latent, const TensorObserver& observer = {}) const;
  /// image: [B, H, W, in_channels] in [-1, 1]; H and W multiples of the spatial factor.
  LatentDistribution encode(const Context& context, const Tensor& image) const;

  /// The same, tile by tile; equal to decode() and encode() where one tile holds everything.
  Tensor decode_tiled(const Context& context, const Tensor& latent, const VaeTileSettings& tiles) const;
  LatentDistribution encode_tiled(const Context& context, const Tensor& image, const VaeTileSettings& tiles) const;

 private:
  Tensor encode_moments(const Context& context, const Tensor& image) const;
};

}  // namespace chipmunk
