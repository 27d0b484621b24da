#include "models/clip_text.h"

#include <algorithm>
#include <string>

#include "chipmunk/error.h"
#include "models/token_ids.h"
#include "ops/attention.h"
#include "ops/elementwise.h"

namespace chipmunk {
namespace {

// transformers' marker of configs written before the end token's id was stored.
constexpr int64_t kLegacyEosTokenId = 2;

void layer_forward(const Context& context, const ClipTextConfig& config, const ClipTextLayer& layer,
                   const Tensor& hidden) {
  const int64_t channels = config.hidden_size, heads = config.num_attention_heads;
  const Tensor normed = ops::layer_norm(context, hidden, config.layer_norm_eps, layer.norm_1);
  const Tensor qkv = context.empty({hidden.dim(0), hidden.dim(1), 3 * channels});
  concat_linear_into(context, normed, layer.qkv, qkv);
  ops::AttentionOptions options;
  options.causal = true;
  ops::attention_into(
      context, split_heads(qkv.slice(2, 0, channels), heads), split_heads(qkv.slice(2, channels, 2 * channels), heads),
      split_heads(qkv.slice(2, 2 * channels, 3 * channels), heads), split_heads(normed, heads), options);
  ops::linear_into(context, normed, layer.attention_out, hidden, {Activation::kNone, {}, hidden});
  ops::layer_norm_into(context, hidden, normed, config.layer_norm_eps, layer.norm_2);
  const Tensor features = ops::linear(context, normed, layer.fc1, {config.hidden_act, {}, {}});
  ops::linear_into(context, features, layer.fc2, hidden, {Activation::kNone, {}, hidden});
}

}  // namespace

ClipTextModel ClipTextModel::bind(const ClipTextConfig& config, WeightMap& weights) {
  const bool prefixed = weights.contains("text_model.embeddings.token_embedding.weight");
  const WeightScope root = weights.scope(prefixed ? "text_model" : "");
  // Buffers and the projection of the contrastive training, which pooling for FLUX does not use.
  for (const char* name : {"text_model.embeddings.position_ids", "embeddings.position_ids", "text_projection.weight",
                           "text_projection", "logit_scale"}) {
    weights.ignore(name);
  }
  const int64_t channels = config.hidden_size;
  ClipTextModel model;
  model.config = config;
  model.token_embedding = root.take("embeddings.token_embedding.weight", {config.vocab_size, channels});
  model.position_embedding =
      root.take("embeddings.position_embedding.weight", {config.max_position_embeddings, channels});
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const WeightScope scope = root.scope("encoder.layers." + std::to_string(i));
    const WeightScope attention = scope.scope("self_attn");
    ClipTextLayer layer;
    layer.norm_1 = take_norm(scope, "layer_norm1", channels);
    layer.qkv = {{take_linear(attention, "q_proj", channels, channels),
                  take_linear(attention, "k_proj", channels, channels),
                  take_linear(attention, "v_proj", channels, channels)}};
    layer.attention_out = take_linear(attention, "out_proj", channels, channels);
    layer.norm_2 = take_norm(scope, "layer_norm2", channels);
    layer.fc1 = take_linear(scope, "mlp.fc1", config.intermediate_size, channels);
    layer.fc2 = take_linear(scope, "mlp.fc2", channels, config.intermediate_size);
    model.layers.push_back(layer);
  }
  model.final_norm = take_norm(root, "final_layer_norm", channels);
  return model;
}

ClipTextOutput ClipTextModel::forward(const Context& context, const std::vector<std::vector<int32_t>>& ids,
                                      const TensorObserver& observer) const {
  const int64_t batch = static_cast<int64_t>(ids.size());
  const Tensor id_tensor = upload_token_ids(context, ids, config.vocab_size);
  const int64_t tokens = id_tensor.dim(0) / batch;
  if (tokens > config.max_position_embeddings) {
    throw Error(ErrorCode::kInvalidArgument,
                "expected at most " + std::to_string(config.max_position_embeddings) + " tokens, found " +
                    std::to_string(tokens),
                "CLIP text model");
  }
  const Tensor hidden =
      ops::embedding(context, id_tensor, token_embedding).reshape({batch, tokens, config.hidden_size});
  const Tensor positions = position_embedding.slice(0, 0, tokens).unsqueeze(0).expand(0, batch);
  ops::axpby_into(context, 1.0f, hidden, 1.0f, positions, hidden);
  for (size_t i = 0; i < layers.size(); ++i) {
    layer_forward(context, config, layers[i], hidden);
    if (observer) observer("hidden." + std::to_string(i + 1), hidden);
  }

  ClipTextOutput output;
  output.last_hidden_state = ops::layer_norm(context, hidden, config.layer_norm_eps, final_norm);
  output.pooled = context.empty({batch, config.hidden_size});
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t position = clip_pooling_position(ids[static_cast<size_t>(b)], config.eos_token_id);
    ops::copy_into(context, output.last_hidden_state.select(0, b).select(0, position), output.pooled.select(0, b));
  }
  return output;
}

int64_t clip_pooling_position(const std::vector<int32_t>& ids, int64_t eos_token_id) {
  const auto position = eos_token_id == kLegacyEosTokenId
                            ? std::max_element(ids.begin(), ids.end())
                            : std::find(ids.begin(), ids.end(), static_cast<int32_t>(eos_token_id));
  // As the reference does where no end token is found.
  return position == ids.end() ? 0 : position - ids.begin();
}

ClipTextConfig ClipTextConfig::from_json(const JsonConfig& json) {
  constexpr int64_t kMaxSize = 1 << 22;
  ClipTextConfig config;
  config.vocab_size = json.integer("vocab_size", 1, kMaxSize);
  config.hidden_size = json.integer("hidden_size", 1, kMaxSize);
  config.intermediate_size = json.integer("intermediate_size", 1, kMaxSize);
  config.num_hidden_layers = json.integer("num_hidden_layers", 0, kMaxSize);
  config.num_attention_heads = json.integer("num_attention_heads", 1, kMaxSize);
  config.max_position_embeddings = json.integer_or("max_position_embeddings", 77, 1, kMaxSize);
  config.eos_token_id = json.integer_or("eos_token_id", 49407, 0, kMaxSize);
  config.layer_norm_eps = static_cast<float>(json.number_or("layer_norm_eps", 1e-5));
  const std::string act = json.string_or("hidden_act", "quick_gelu");
  if (act == "quick_gelu") {
    config.hidden_act = Activation::kQuickGelu;
  } else if (act == "gelu") {
    config.hidden_act = Activation::kGeluErf;
  } else {
    throw Error(ErrorCode::kUnsupported, "hidden_act: expected quick_gelu or gelu, found " + act, json.where());
  }
  if (config.hidden_size % config.num_attention_heads != 0) {
    throw Error(ErrorCode::kInvalidConfig,
                "hidden_size = " + std::to_string(config.hidden_size) +
                    " is no multiple of num_attention_heads = " + std::to_string(config.num_attention_heads),
                json.where());
  }
  return config;
}

}  // namespace chipmunk
