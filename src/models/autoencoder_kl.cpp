#include "models/autoencoder_kl.h"

#include <string>

#include "chipmunk/error.h"
#include "models/vae_tiling.h"
#include "ops/attention.h"
#include "ops/elementwise.h"

namespace chipmunk {
namespace {

constexpr float kNormEpsilon = 1e-6f;
constexpr float kMinLogVariance = -30.0f, kMaxLogVariance = 20.0f;

Tensor norm_silu(const Context& context, const AutoencoderConfig& config, const Tensor& x,
                 const ops::NormAffine& norm) {
  return ops::group_norm(context, x, norm, config.norm_num_groups, kNormEpsilon, Activation::kSilu);
}

Tensor conv_same(const Context& context, const Tensor& x, const Conv2d& layer, const Tensor& residual = {}) {
  return ops::conv2d(context, x, layer, ops::Conv2dOptions::same(layer, residual));
}

Tensor resnet_forward(const Context& context, const AutoencoderConfig& config, const VaeResnetBlock& block,
                      const Tensor& x) {
  const Tensor hidden = conv_same(context, norm_silu(context, config, x, block.norm_1), block.conv_1);
  const Tensor residual = block.shortcut ? conv_same(context, x, *block.shortcut) : x;
  return conv_same(context, norm_silu(context, config, hidden, block.norm_2), block.conv_2, residual);
}

Tensor attention_forward(const Context& context, const AutoencoderConfig& config, const VaeAttention& block,
                         const Tensor& x) {
  const int64_t batch = x.dim(0), pixels = x.dim(1) * x.dim(2), channels = x.dim(3);
  const Dims rows = {batch, pixels, channels};
  const Tensor normed = ops::group_norm(context, x, block.norm, config.norm_num_groups, kNormEpsilon).reshape(rows);
  const Tensor qkv = context.empty({batch, pixels, 3 * channels});
  concat_linear_into(context, normed, block.qkv, qkv);
  ops::attention_into(context, split_heads(qkv.slice(2, 0, channels), 1),
                      split_heads(qkv.slice(2, channels, 2 * channels), 1),
                      split_heads(qkv.slice(2, 2 * channels, 3 * channels), 1), split_heads(normed, 1));
  return ops::linear(context, normed, block.out, {Activation::kNone, {}, x.reshape(rows)}).reshape(x.shape());
}

Tensor mid_forward(const Context& context, const AutoencoderConfig& config, const VaeMidBlock& block, Tensor x) {
  x = resnet_forward(context, config, block.resnet_1, x);
  if (block.attention) x = attention_forward(context, config, *block.attention, x);
  return resnet_forward(context, config, block.resnet_2, x);
}

VaeResnetBlock bind_resnet(const Context& context, const WeightScope& scope, int64_t in_channels,
                           int64_t out_channels) {
  VaeResnetBlock block;
  block.norm_1 = take_norm(scope, "norm1", in_channels);
  block.conv_1 = take_conv2d(context, scope, "conv1", out_channels, in_channels, 3);
  block.norm_2 = take_norm(scope, "norm2", out_channels);
  block.conv_2 = take_conv2d(context, scope, "conv2", out_channels, out_channels, 3);
  if (in_channels != out_channels) {
    block.shortcut = take_conv2d(context, scope, "conv_shortcut", out_channels, in_channels, 1);
  }
  return block;
}

VaeMidBlock bind_mid(const Context& context, const AutoencoderConfig& config, const WeightScope& scope) {
  const int64_t channels = config.block_out_channels.back();
  VaeMidBlock block;
  block.resnet_1 = bind_resnet(context, scope.scope("resnets.0"), channels, channels);
  if (config.mid_block_add_attention) {
    const WeightScope attention = scope.scope("attentions.0");
    block.attention = VaeAttention{
        take_norm(attention, "group_norm", channels),
        {{take_linear(attention, "to_q", channels, channels), take_linear(attention, "to_k", channels, channels),
          take_linear(attention, "to_v", channels, channels)}},
        take_linear(attention, "to_out.0", channels, channels)};
  }
  block.resnet_2 = bind_resnet(context, scope.scope("resnets.1"), channels, channels);
  return block;
}

/// The stages of one direction. channels: of each stage in the order they run; `name` is down or up.
std::vector<VaeStage> bind_stages(const Context& context, const WeightScope& scope, const std::string& name,
                                  const std::string& resampler, const std::vector<int64_t>& channels,
                                  int64_t first_in_channels, int64_t resnets) {
  std::vector<VaeStage> stages;
  int64_t in_channels = first_in_channels;
  for (size_t i = 0; i < channels.size(); ++i) {
    const WeightScope stage_scope = scope.scope(name + "_blocks." + std::to_string(i));
    VaeStage stage;
    for (int64_t j = 0; j < resnets; ++j) {
      stage.resnets.push_back(
          bind_resnet(context, stage_scope.scope("resnets." + std::to_string(j)), in_channels, channels[i]));
      in_channels = channels[i];
    }
    if (i + 1 < channels.size()) {
      stage.resample = take_conv2d(context, stage_scope, resampler + ".0.conv", in_channels, in_channels, 3);
    }
    stages.push_back(std::move(stage));
  }
  return stages;
}

LatentDistribution split_moments(const Context& context, const Tensor& moments) {
  const int64_t latent = moments.dim(3) / 2;
  const Tensor logvar = moments.slice(3, latent, 2 * latent);
  ops::clamp_into(context, logvar, kMinLogVariance, kMaxLogVariance, logvar);
  return {moments.slice(3, 0, latent), logvar};
}

}  // namespace

AutoencoderKl AutoencoderKl::bind(const Context& context, const AutoencoderConfig& config, const WeightScope& weights) {
  const std::vector<int64_t>& down = config.block_out_channels;
  const std::vector<int64_t> up(down.rbegin(), down.rend());
  AutoencoderKl model;
  model.config = config;

  const WeightScope encoder = weights.scope("encoder");
  model.encoder.conv_in = take_conv2d(context, encoder, "conv_in", down.front(), config.in_channels, 3);
  model.encoder.stages =
      bind_stages(context, encoder, "down", "downsamplers", down, down.front(), config.layers_per_block);
  model.encoder.mid = bind_mid(context, config, encoder.scope("mid_block"));
  model.encoder.norm_out = take_norm(encoder, "conv_norm_out", down.back());
  model.encoder.conv_out = take_conv2d(context, encoder, "conv_out", 2 * config.latent_channels, down.back(), 3);

  const WeightScope decoder = weights.scope("decoder");
  model.decoder.conv_in = take_conv2d(context, decoder, "conv_in", up.front(), config.latent_channels, 3);
  model.decoder.mid = bind_mid(context, config, decoder.scope("mid_block"));
  model.decoder.stages = bind_stages(context, decoder, "up", "upsamplers", up, up.front(), config.layers_per_block + 1);
  model.decoder.norm_out = take_norm(decoder, "conv_norm_out", up.back());
  model.decoder.conv_out = take_conv2d(context, decoder, "conv_out", config.out_channels, up.back(), 3);

  const int64_t latent = config.latent_channels;
  if (config.use_quant_conv) model.quant_conv = take_conv2d(context, weights, "quant_conv", 2 * latent, 2 * latent, 1);
  if (config.use_post_quant_conv) {
    model.post_quant_conv = take_conv2d(context, weights, "post_quant_conv", latent, latent, 1);
  }
  return model;
}

Tensor AutoencoderKl::decode(const Context& context, const Tensor& latent, const TensorObserver& observer) const {
  const auto observe = [&observer](const std::string& name, const Tensor& tensor) {
    if (observer) observer(name, tensor);
  };
  Tensor x = post_quant_conv ? conv_same(context, latent, *post_quant_conv) : latent;
  x = conv_same(context, x, decoder.conv_in);
  observe("conv_in", x);
  x = mid_forward(context, config, decoder.mid, x);
  observe("mid", x);
  for (size_t i = 0; i < decoder.stages.size(); ++i) {
    const VaeStage& stage = decoder.stages[i];
    for (const VaeResnetBlock& block : stage.resnets) x = resnet_forward(context, config, block, x);
    if (stage.resample) x = conv_same(context, ops::upsample_nearest(context, x, 2), *stage.resample);
    observe("up" + std::to_string(i), x);
  }
  return conv_same(context, norm_silu(context, config, x, decoder.norm_out), decoder.conv_out);
}

Tensor AutoencoderKl::encode_moments(const Context& context, const Tensor& image) const {
  Tensor x = conv_same(context, image, encoder.conv_in);
  for (const VaeStage& stage : encoder.stages) {
    for (const VaeResnetBlock& block : stage.resnets) x = resnet_forward(context, config, block, x);
    if (stage.resample) {
      // Padded below and to the right only, as the weights were trained.
      ops::Conv2dOptions options;
      options.stride = 2;
      options.pad_bottom = 1;
      options.pad_right = 1;
      x = ops::conv2d(context, x, *stage.resample, options);
    }
  }
  x = mid_forward(context, config, encoder.mid, x);
  x = conv_same(context, norm_silu(context, config, x, encoder.norm_out), encoder.conv_out);
  return quant_conv ? conv_same(context, x, *quant_conv) : x;
}

LatentDistribution AutoencoderKl::encode(const Context& context, const Tensor& image) const {
  return split_moments(context, encode_moments(context, image));
}

VaeTileSettings VaeTileSettings::native(const AutoencoderConfig& config) {
  return {config.sample_size, config.sample_size / config.spatial_factor(), 0.25};
}

Tensor AutoencoderKl::decode_tiled(const Context& context, const Tensor& latent, const VaeTileSettings& tiles) const {
  const TileGeometry geometry{tiles.latent_tile, tiles.sample_tile, tiles.overlap};
  return process_tiled(context, latent, geometry, [&](const Tensor& tile) { return decode(context, tile); });
}

LatentDistribution AutoencoderKl::encode_tiled(const Context& context, const Tensor& image,
                                               const VaeTileSettings& tiles) const {
  const TileGeometry geometry{tiles.sample_tile, tiles.latent_tile, tiles.overlap};
  return split_moments(context, process_tiled(context, image, geometry,
                                              [&](const Tensor& tile) { return encode_moments(context, tile); }));
}

AutoencoderConfig AutoencoderConfig::from_json(const JsonConfig& json) {
  constexpr int64_t kMaxSize = 1 << 16;
  AutoencoderConfig config;
  config.in_channels = json.integer_or("in_channels", 3, 1, kMaxSize);
  config.out_channels = json.integer_or("out_channels", 3, 1, kMaxSize);
  config.latent_channels = json.integer("latent_channels", 1, kMaxSize);
  config.block_out_channels = json.integers("block_out_channels", 1, kMaxSize);
  config.layers_per_block = json.integer_or("layers_per_block", 1, 1, kMaxSize);
  config.norm_num_groups = json.integer_or("norm_num_groups", 32, 1, kMaxSize);
  config.sample_size = json.integer_or("sample_size", 1024, 16, kMaxSize);
  config.scaling_factor = json.number("scaling_factor");
  config.shift_factor = json.number_or("shift_factor", 0.0);
  config.use_quant_conv = json.boolean_or("use_quant_conv", true);
  config.use_post_quant_conv = json.boolean_or("use_post_quant_conv", true);
  config.mid_block_add_attention = json.boolean_or("mid_block_add_attention", true);
  const std::string act = json.string_or("act_fn", "silu");
  if (act != "silu") {
    throw Error(ErrorCode::kUnsupported, "act_fn: expected silu, found " + act, json.where());
  }
  if (config.block_out_channels.empty() || config.block_out_channels.size() > 8) {
    throw Error(ErrorCode::kInvalidConfig,
                "block_out_channels: expected 1 to 8 sizes, found " + std::to_string(config.block_out_channels.size()),
                json.where());
  }
  for (int64_t channels : config.block_out_channels) {
    if (channels % config.norm_num_groups != 0) {
      throw Error(ErrorCode::kInvalidConfig,
                  "block_out_channels: expected multiples of norm_num_groups = " +
                      std::to_string(config.norm_num_groups) + ", found " + std::to_string(channels),
                  json.where());
    }
  }
  if (!(config.scaling_factor > 0.0)) {
    throw Error(ErrorCode::kInvalidConfig,
                "scaling_factor: expected a positive number, found " + std::to_string(config.scaling_factor),
                json.where());
  }
  return config;
}

}  // namespace chipmunk
