#pragma once

#include <cstdint>
#include <vector>

#include "io/config.h"
#include "models/layers.h"
#include "params.h"

namespace chipmunk {

/// CLIPTextModel's settings, names as in transformers' config.json.
struct ClipTextConfig {
  int64_t vocab_size = 49408;
  int64_t hidden_size = 768, intermediate_size = 3072;
  int64_t num_hidden_layers = 12, num_attention_heads = 12;
  int64_t max_position_embeddings = 77;
  int64_t eos_token_id = 2;
  float layer_norm_eps = 1e-5f;
  Activation hidden_act = Activation::kQuickGelu;

  static ClipTextConfig from_json(const JsonConfig& json);
};

struct ClipTextLayer {
  ops::NormAffine norm_1, norm_2;
  ConcatLinear qkv;
  Linear attention_out, fc1, fc2;
};

struct ClipTextOutput {
  Tensor last_hidden_state;  ///< [B, T, C], after the final layer norm
  Tensor pooled;             ///< [B, C]: the last hidden state at each sample's end token
};

/// CLIP's causal text encoder.
struct ClipTextModel {
  ClipTextConfig config;
  Tensor token_embedding, position_embedding;
  std::vector<ClipTextLayer> layers;
  ops::NormAffine final_norm;

  /// Accepts names with and without the "text_model." prefix and ignores what belongs to CLIP's other half.
  static ClipTextModel bind(const ClipTextConfig& config, WeightMap& weights);

  /// ids: token ids [batch][tokens], all of equal length, at most max_position_embeddings.
  /// Observed names: hidden.<i> after layer i (1-based).
  ClipTextOutput forward(const Context& context, const std::vector<std::vector<int32_t>>& ids,
                         const TensorObserver& observer = {}) const;
};

/// Where CLIP pools: the first end token; eos_token_id 2 is the legacy marker for "the largest id".
int64_t clip_pooling_position(const std::vector<int32_t>& ids, int64_t eos_token_id);

}  // namespace chipmunk
