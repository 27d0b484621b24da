#include "models/t5_encoder.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "chipmunk/error.h"
#include "core/float_formats.h"
#include "models/token_ids.h"
#include "ops/attention.h"
#include "ops/elementwise.h"

namespace chipmunk {
namespace {

/// The bias of every offset key - query in (-tokens, tokens): f32 [heads, 2 tokens - 1].
Tensor expand_relative_bias(const Context& context, const T5Config& config, const Tensor& table, int64_t tokens) {
  const Tensor host_table = context.to_host(table);
  const Tensor bias = make_host_tensor({config.num_heads, 2 * tokens - 1}, DType::kF32);
  float* out = bias.data_as<float>();
  for (int64_t head = 0; head < config.num_heads; ++head) {
    for (int64_t offset = 1 - tokens; offset < tokens; ++offset) {
      const int64_t bucket =
          t5_relative_bucket(offset, config.relative_attention_num_buckets, config.relative_attention_max_distance);
      *out++ = load_as_float(host_table.data(), host_table.dtype(), bucket * config.num_heads + head);
    }
  }
  return context.to_device(bias);
}

void layer_forward(const Context& context, const T5Config& config, const T5Layer& layer, const Tensor& relative_bias,
                   const Tensor& hidden) {
  const int64_t inner = config.attention_dim();
  const Tensor qkv = context.empty({hidden.dim(0), hidden.dim(1), 3 * inner});
  concat_linear_into(context, ops::rms_norm(context, hidden, layer.attention_norm, config.layer_norm_epsilon),
                     layer.qkv, qkv);
  const Tensor attended = context.empty({hidden.dim(0), hidden.dim(1), inner});
  ops::AttentionOptions options;
  options.scale = 1.0f;
  options.relative_bias = relative_bias;
  ops::attention_into(context, split_heads(qkv.slice(2, 0, inner), config.num_heads),
                      split_heads(qkv.slice(2, inner, 2 * inner), config.num_heads),
                      split_heads(qkv.slice(2, 2 * inner, 3 * inner), config.num_heads),
                      split_heads(attended, config.num_heads), options);
  ops::linear_into(context, attended, layer.attention_out, hidden, {Activation::kNone, {}, hidden});

  const Tensor normed = ops::rms_norm(context, hidden, layer.feed_forward_norm, config.layer_norm_epsilon);
  const Tensor features = ops::gated_activation(
      context, Activation::kGeluTanh, ops::linear(context, normed, layer.gate), ops::linear(context, normed, layer.up));
  ops::linear_into(context, features, layer.down, hidden, {Activation::kNone, {}, hidden});
}

}  // namespace

T5Encoder T5Encoder::bind(const T5Config& config, WeightMap& weights) {
  const int64_t channels = config.d_model, inner = config.attention_dim();
  T5Encoder model;
  model.config = config;
  // The embedding is stored under either name, or tied under both.
  const char* embedding = weights.contains("shared.weight") ? "shared.weight" : "encoder.embed_tokens.weight";
  model.token_embedding = weights.take(embedding, {config.vocab_size, channels});
  weights.ignore("encoder.embed_tokens.weight");
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const WeightScope scope = weights.scope("encoder.block." + std::to_string(i) + ".layer");
    const WeightScope attention = scope.scope("0.SelfAttention");
    const WeightScope feed_forward = scope.scope("1.DenseReluDense");
    if (i == 0) {
      model.relative_bias_table =
          attention.take("relative_attention_bias.weight", {config.relative_attention_num_buckets, config.num_heads});
    }
    T5Layer layer;
    layer.attention_norm = scope.take("0.layer_norm.weight", {channels});
    layer.qkv = {{take_linear_without_bias(attention, "q", inner, channels),
                  take_linear_without_bias(attention, "k", inner, channels),
                  take_linear_without_bias(attention, "v", inner, channels)}};
    layer.attention_out = take_linear_without_bias(attention, "o", channels, inner);
    layer.feed_forward_norm = scope.take("1.layer_norm.weight", {channels});
    layer.gate = take_linear_without_bias(feed_forward, "wi_0", config.d_ff, channels);
    layer.up = take_linear_without_bias(feed_forward, "wi_1", config.d_ff, channels);
    layer.down = take_linear_without_bias(feed_forward, "wo", channels, config.d_ff);
    model.layers.push_back(layer);
  }
  model.final_norm = weights.take("encoder.final_layer_norm.weight", {channels});
  return model;
}

Tensor T5Encoder::forward(const Context& context, const std::vector<std::vector<int32_t>>& ids,
                          const TensorObserver& observer) const {
  const int64_t batch = static_cast<int64_t>(ids.size());
  const Tensor id_tensor = upload_token_ids(context, ids, config.vocab_size);
  const int64_t tokens = id_tensor.dim(0) / batch;
  const Tensor hidden = ops::embedding(context, id_tensor, token_embedding).reshape({batch, tokens, config.d_model});
  const Tensor relative_bias = expand_relative_bias(context, config, relative_bias_table, tokens);
  for (size_t i = 0; i < layers.size(); ++i) {
    layer_forward(context, config, layers[i], relative_bias, hidden);
    if (observer) observer("hidden." + std::to_string(i + 1), hidden);
  }
  return ops::rms_norm(context, hidden, final_norm, config.layer_norm_epsilon);
}

int64_t t5_relative_bucket(int64_t relative_position, int64_t num_buckets, int64_t max_distance) {
  const int64_t half = num_buckets / 2;
  const int64_t side = relative_position > 0 ? half : 0;
  const int64_t distance = std::abs(relative_position);
  const int64_t exact = half / 2;
  if (distance < exact) return side + distance;
  // In f32, as the reference: a distance on a bucket's border must fall on the same side.
  const float ratio = std::log(static_cast<float>(distance) / static_cast<float>(exact)) /
                      static_cast<float>(std::log(static_cast<double>(max_distance) / static_cast<double>(exact)));
  const int64_t bucket = exact + static_cast<int64_t>(ratio * static_cast<float>(half - exact));
  return side + std::min(bucket, half - 1);
}

T5Config T5Config::from_json(const JsonConfig& json) {
  constexpr int64_t kMaxSize = 1 << 22;
  T5Config config;
  config.vocab_size = json.integer("vocab_size", 1, kMaxSize);
  config.d_model = json.integer("d_model", 1, kMaxSize);
  config.d_kv = json.integer("d_kv", 1, kMaxSize);
  config.d_ff = json.integer("d_ff", 1, kMaxSize);
  config.num_layers = json.integer("num_layers", 1, kMaxSize);
  config.num_heads = json.integer("num_heads", 1, kMaxSize);
  config.relative_attention_num_buckets = json.integer_or("relative_attention_num_buckets", 32, 4, kMaxSize);
  config.relative_attention_max_distance = json.integer_or("relative_attention_max_distance", 128, 1, kMaxSize);
  config.layer_norm_epsilon = static_cast<float>(json.number_or("layer_norm_epsilon", 1e-6));
  const std::string feed_forward = json.string_or("feed_forward_proj", "gated-gelu");
  if (feed_forward != "gated-gelu") {
    throw Error(ErrorCode::kUnsupported, "feed_forward_proj: expected gated-gelu (T5 v1.1), found " + feed_forward,
                json.where());
  }
  if (config.relative_attention_max_distance <= config.relative_attention_num_buckets / 4) {
    throw Error(ErrorCode::kInvalidConfig,
                "relative_attention_max_distance: expected more than a quarter of relative_attention_num_buckets",
                json.where());
  }
  return config;
}

}  // namespace chipmunk
