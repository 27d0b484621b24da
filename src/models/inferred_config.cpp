#include "models/inferred_config.h"

#include <string>

#include "chipmunk/error.h"

namespace chipmunk {
namespace {

/// One size of a weight whose rank is checked.
int64_t size_of_weight(const WeightMap& weights, const std::string& name, int rank, int dimension) {
  const Dims shape = weights.shape_of(name);
  if (shape.rank() != rank) {
    throw Error(ErrorCode::kInvalidWeights,
                name + ": expected rank " + std::to_string(rank) + ", found shape " + to_string(shape),
                weights.where());
  }
  return shape[dimension];
}

/// How many of <before>0<after>, <before>1<after>, ... there are.
int64_t count_blocks(const WeightMap& weights, const std::string& before, const std::string& after) {
  int64_t count = 0;
  while (weights.contains(before + std::to_string(count) + after)) ++count;
  return count;
}

/// A JSON object, written value by value.
class JsonText {
 public:
  JsonText& add(const std::string& key, int64_t value) { return add_raw(key, std::to_string(value)); }
  JsonText& add(const std::string& key, bool value) { return add_raw(key, value ? "true" : "false"); }
  JsonText& add_raw(const std::string& key, const std::string& value) {
    text_ += (text_.empty() ? "{\"" : ", \"") + key + "\": " + value;
    return *this;
  }
  JsonConfig parse(const WeightMap& weights) const {
    return JsonConfig::parse(text_ + "}", "config inferred from " + weights.where());
  }

 private:
  std::string text_;
};

}  // namespace

JsonConfig infer_flux_config(const WeightMap& weights) {
  const int64_t inner = size_of_weight(weights, "x_embedder.weight", 2, 0);
  const bool has_double = weights.contains("transformer_blocks.0.attn.norm_q.weight");
  const int64_t head_dim = size_of_weight(
      weights,
      has_double ? "transformer_blocks.0.attn.norm_q.weight" : "single_transformer_blocks.0.attn.norm_q.weight", 1, 0);
  JsonText json;
  json.add("in_channels", size_of_weight(weights, "x_embedder.weight", 2, 1))
      .add("out_channels", size_of_weight(weights, "proj_out.weight", 2, 0))
      .add("num_layers", count_blocks(weights, "transformer_blocks.", ".attn.norm_q.weight"))
      .add("num_single_layers", count_blocks(weights, "single_transformer_blocks.", ".attn.norm_q.weight"))
      .add("attention_head_dim", head_dim)
      .add("num_attention_heads", head_dim == 0 ? int64_t{0} : inner / head_dim)
      .add("joint_attention_dim", size_of_weight(weights, "context_embedder.weight", 2, 1))
      .add("pooled_projection_dim", size_of_weight(weights, "time_text_embed.text_embedder.linear_1.weight", 2, 1))
      .add("guidance_embeds", weights.contains("time_text_embed.guidance_embedder.linear_1.weight"));
  return json.parse(weights);
}

JsonConfig infer_vae_config(const WeightMap& weights) {
  std::string channels;
  const int64_t stages = count_blocks(weights, "encoder.down_blocks.", ".resnets.0.conv1.weight");
  for (int64_t i = 0; i < stages; ++i) {
    const std::string conv = "encoder.down_blocks." + std::to_string(i) + ".resnets.0.conv1.weight";
    channels += (i == 0 ? "" : ", ") + std::to_string(size_of_weight(weights, conv, 4, 0));
  }
  JsonText json;
  json.add("in_channels", size_of_weight(weights, "encoder.conv_in.weight", 4, 1))
      .add("out_channels", size_of_weight(weights, "decoder.conv_out.weight", 4, 0))
      .add("latent_channels", size_of_weight(weights, "decoder.conv_in.weight", 4, 1))
      .add_raw("block_out_channels", "[" + channels + "]")
      .add("layers_per_block", count_blocks(weights, "encoder.down_blocks.0.resnets.", ".conv1.weight"))
      .add("use_quant_conv", weights.contains("quant_conv.weight"))
      .add("use_post_quant_conv", weights.contains("post_quant_conv.weight"))
      .add("mid_block_add_attention", weights.contains("decoder.mid_block.attentions.0.to_q.weight"))
      .add("norm_num_groups", int64_t{32})
      .add("sample_size", int64_t{1024})
      .add_raw("scaling_factor", "0.3611")
      .add_raw("shift_factor", "0.1159");
  return json.parse(weights);
}

JsonConfig infer_clip_text_config(const WeightMap& weights) {
  const std::string root = weights.contains("text_model.embeddings.token_embedding.weight") ? "text_model." : "";
  const int64_t hidden = size_of_weight(weights, root + "embeddings.token_embedding.weight", 2, 1);
  // CLIP-L's heads have 64 dimensions.
  constexpr int64_t kHeadDim = 64;
  JsonText json;
  json.add("vocab_size", size_of_weight(weights, root + "embeddings.token_embedding.weight", 2, 0))
      .add("hidden_size", hidden)
      .add("intermediate_size", size_of_weight(weights, root + "encoder.layers.0.mlp.fc1.weight", 2, 0))
      .add("num_hidden_layers", count_blocks(weights, root + "encoder.layers.", ".mlp.fc1.weight"))
      .add("num_attention_heads", hidden % kHeadDim == 0 ? hidden / kHeadDim : int64_t{1})
      .add("max_position_embeddings", size_of_weight(weights, root + "embeddings.position_embedding.weight", 2, 0))
      .add("eos_token_id", int64_t{2})
      .add_raw("hidden_act", "\"quick_gelu\"");
  return json.parse(weights);
}

JsonConfig infer_t5_config(const WeightMap& weights) {
  const std::string embedding = weights.contains("shared.weight") ? "shared.weight" : "encoder.embed_tokens.weight";
  const std::string block = "encoder.block.0.layer.";
  const int64_t heads = size_of_weight(weights, block + "0.SelfAttention.relative_attention_bias.weight", 2, 1);
  const int64_t inner = size_of_weight(weights, block + "0.SelfAttention.q.weight", 2, 0);
  JsonText json;
  json.add("vocab_size", size_of_weight(weights, embedding, 2, 0))
      .add("d_model", size_of_weight(weights, embedding, 2, 1))
      .add("d_kv", heads == 0 ? int64_t{0} : inner / heads)
      .add("d_ff", size_of_weight(weights, block + "1.DenseReluDense.wi_0.weight", 2, 0))
      .add("num_layers", count_blocks(weights, "encoder.block.", ".layer.0.SelfAttention.q.weight"))
      .add("num_heads", heads)
      .add("relative_attention_num_buckets",
           size_of_weight(weights, block + "0.SelfAttention.relative_attention_bias.weight", 2, 0));
  return json.parse(weights);
}

JsonConfig default_flux_scheduler_config(bool guidance_embeds) {
  return JsonConfig::parse(guidance_embeds ? R"({"use_dynamic_shifting": true, "shift": 3.0, "base_shift": 0.5,
        "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096, "num_train_timesteps": 1000})"
                                           : R"({"use_dynamic_shifting": false, "shift": 1.0, "base_shift": 0.5,
        "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096, "num_train_timesteps": 1000})",
                           "FLUX.1's scheduler defaults");
}

}  // namespace chipmunk
