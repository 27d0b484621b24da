#include "random_models.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "core/philox.h"
#include "ops/elementwise.h"

namespace chipmunk::cli {
namespace {

/// Positions in the pool are multiples of it, so that vector loads stay aligned.
constexpr int64_t kAlignment = 64;
/// A prime factor larger than any number of rows: no two rows of a weight are equal.
constexpr int64_t kPoolSize = kAlignment * 65537;
constexpr float kBiasScale = 0.02f, kNormScale = 0.1f;
/// Of the sinusoidal embeddings of timestep and guidance.
constexpr int64_t kTimeChannels = 256;

float fan_in_scale(int64_t fan_in) { return 1.0f / std::sqrt(static_cast<float>(fan_in)); }

Tensor matrix(RandomTensors& random, int64_t rows, int64_t columns, float scale) {
  return random.normal({rows, columns}, DType::kBF16, scale);
}

Linear linear_without_bias(RandomTensors& random, int64_t out_features, int64_t in_features, float gain = 1.0f) {
  return {matrix(random, out_features, in_features, gain * fan_in_scale(in_features)), {}};
}

Linear linear(RandomTensors& random, int64_t out_features, int64_t in_features) {
  Linear layer = linear_without_bias(random, out_features, in_features);
  layer.bias = random.normal({out_features}, DType::kBF16, kBiasScale);
  return layer;
}

/// q, k and v side by side, as the engine's loading leaves them.
ConcatLinear qkv(RandomTensors& random, int64_t channels) {
  const Linear whole = linear(random, 3 * channels, channels);
  ConcatLinear layer;
  for (int64_t begin = 0; begin < 3 * channels; begin += channels) {
    layer.parts.push_back(
        {whole.weight.slice(0, begin, begin + channels), whole.bias.slice(0, begin, begin + channels)});
  }
  return layer;
}

Tensor norm_weight(RandomTensors& random, int64_t channels) {
  return random.normal({channels}, DType::kBF16, kNormScale, 1.0f);
}

ops::NormAffine norm(RandomTensors& random, int64_t channels) {
  return {norm_weight(random, channels), random.normal({channels}, DType::kBF16, kBiasScale)};
}

Conv2d conv(RandomTensors& random, int64_t out_channels, int64_t in_channels, int64_t size) {
  // Convolutions take their weights in the dtype of activations.
  return {random.normal({out_channels, size, size, in_channels}, random.context().activation_dtype(),
                        fan_in_scale(size * size * in_channels)),
          random.normal({out_channels}, DType::kBF16, kBiasScale)};
}

FluxVectorEmbedder embedder(RandomTensors& random, int64_t channels, int64_t in_features) {
  return {linear(random, channels, in_features), linear(random, channels, channels)};
}

FluxDoubleStream double_stream(RandomTensors& random, const FluxConfig& config) {
  const int64_t channels = config.inner_dim(), head_dim = config.attention_head_dim;
  return {linear(random, 6 * channels, channels),
          qkv(random, channels),
          norm_weight(random, head_dim),
          norm_weight(random, head_dim),
          linear(random, channels, channels),
          {linear(random, config.mlp_dim(), channels), linear(random, channels, config.mlp_dim())}};
}

VaeResnetBlock resnet(RandomTensors& random, int64_t in_channels, int64_t out_channels) {
  VaeResnetBlock block{norm(random, in_channels),
                       norm(random, out_channels),
                       conv(random, out_channels, in_channels, 3),
                       conv(random, out_channels, out_channels, 3),
                       {}};
  if (in_channels != out_channels) block.shortcut = conv(random, out_channels, in_channels, 1);
  return block;
}

}  // namespace

RandomTensors::RandomTensors(const Context& context, uint64_t seed) : context_(context) {
  const Tensor host = make_host_tensor({kPoolSize}, DType::kF32);
  philox_normals(seed, std::span<float>(host.data_as<float>(), static_cast<size_t>(kPoolSize)));
  normals_ = context.to_device(host);
}

const Tensor& RandomTensors::pool(float scale, float mean) {
  Tensor& pool = pools_[{scale, mean}];
  if (!pool.empty()) return pool;
  const Tensor one = make_host_tensor({1}, DType::kF32);
  *one.data_as<float>() = 1.0f;
  pool = context_.empty({kPoolSize}, DType::kF32);
  ops::axpby_into(context_, scale, normals_, mean, context_.to_device(one).expand(0, kPoolSize), pool);
  return pool;
}

Tensor RandomTensors::normal(const Dims& shape, DType dtype, float scale, float mean) {
  const Tensor& source = pool(scale, mean);
  const int64_t count = numel(shape);
  const Tensor values = context_.empty({count}, dtype);
  for (int64_t at = 0; at < count;) {
    const int64_t length = std::min(count - at, kPoolSize - position_);
    ops::copy_into(context_, source.slice(0, position_, position_ + length), values.slice(0, at, at + length));
    at += length;
    position_ = (position_ + (length + kAlignment - 1) / kAlignment * kAlignment) % kPoolSize;
  }
  return values.reshape(shape);
}

FluxTransformer random_flux(RandomTensors& random, const FluxConfig& config) {
  const int64_t channels = config.inner_dim(), head_dim = config.attention_head_dim;
  FluxTransformer model;
  model.config = config;
  model.x_embedder = linear(random, channels, config.in_channels);
  model.context_embedder = linear(random, channels, config.joint_attention_dim);
  model.timestep_embedder = embedder(random, channels, kTimeChannels);
  model.text_embedder = embedder(random, channels, config.pooled_projection_dim);
  if (config.guidance_embeds) model.guidance_embedder = embedder(random, channels, kTimeChannels);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    model.double_blocks.push_back({double_stream(random, config), double_stream(random, config)});
  }
  for (int64_t i = 0; i < config.num_single_layers; ++i) {
    model.single_blocks.push_back({linear(random, 3 * channels, channels), qkv(random, channels),
                                   norm_weight(random, head_dim), norm_weight(random, head_dim),
                                   linear(random, config.mlp_dim(), channels),
                                   linear(random, channels, channels + config.mlp_dim())});
  }
  model.norm_out = linear(random, 2 * channels, channels);
  model.proj_out = linear(random, config.out_channels, channels);
  return model;
}

T5Encoder random_t5(RandomTensors& random, const T5Config& config) {
  const int64_t channels = config.d_model, inner = config.attention_dim();
  T5Encoder model;
  model.config = config;
  model.token_embedding = matrix(random, config.vocab_size, channels, 1.0f);
  model.relative_bias_table = matrix(random, config.relative_attention_num_buckets, config.num_heads, 1.0f);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    T5Layer layer;
    layer.attention_norm = norm_weight(random, channels);
    layer.feed_forward_norm = norm_weight(random, channels);
    const Tensor qkv = linear_without_bias(random, 3 * inner, channels).weight;
    // T5 has the factor 1 / sqrt(d) of attention in its query weights.
    ops::copy_into(random.context(), linear_without_bias(random, inner, channels, fan_in_scale(config.d_kv)).weight,
                   qkv.slice(0, 0, inner));
    for (int64_t part = 0; part < 3; ++part) {
      layer.qkv.parts.push_back({qkv.slice(0, part * inner, (part + 1) * inner), {}});
    }
    layer.attention_out = linear_without_bias(random, channels, inner);
    layer.gate = linear_without_bias(random, config.d_ff, channels);
    layer.up = linear_without_bias(random, config.d_ff, channels);
    layer.down = linear_without_bias(random, channels, config.d_ff);
    model.layers.push_back(layer);
  }
  model.final_norm = norm_weight(random, channels);
  return model;
}

ClipTextModel random_clip(RandomTensors& random, const ClipTextConfig& config) {
  const int64_t channels = config.hidden_size;
  ClipTextModel model;
  model.config = config;
  model.token_embedding = matrix(random, config.vocab_size, channels, 1.0f);
  model.position_embedding = matrix(random, config.max_position_embeddings, channels, 1.0f);
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    model.layers.push_back({norm(random, channels), norm(random, channels), qkv(random, channels),
                            linear(random, channels, channels), linear(random, config.intermediate_size, channels),
                            linear(random, channels, config.intermediate_size)});
  }
  model.final_norm = norm(random, channels);
  return model;
}

AutoencoderKl random_vae_decoder(RandomTensors& random, const AutoencoderConfig& config) {
  AutoencoderKl model;
  model.config = config;
  VaeCoder& decoder = model.decoder;
  int64_t channels = config.block_out_channels.back();
  decoder.conv_in = conv(random, channels, config.latent_channels, 3);
  decoder.mid = {resnet(random, channels, channels), resnet(random, channels, channels), {}};
  if (config.mid_block_add_attention) {
    decoder.mid.attention =
        VaeAttention{norm(random, channels), qkv(random, channels), linear(random, channels, channels)};
  }
  const auto& stages = config.block_out_channels;
  for (auto out_channels = stages.rbegin(); out_channels != stages.rend(); ++out_channels) {
    VaeStage stage;
    for (int64_t i = 0; i <= config.layers_per_block; ++i) {
      stage.resnets.push_back(resnet(random, channels, *out_channels));
      channels = *out_channels;
    }
    if (out_channels + 1 != stages.rend()) stage.resample = conv(random, channels, channels, 3);
    decoder.stages.push_back(std::move(stage));
  }
  decoder.norm_out = norm(random, channels);
  decoder.conv_out = conv(random, config.out_channels, channels, 3);
  return model;
}

}  // namespace chipmunk::cli
