#pragma once

#include <cstdint>
#include <vector>

#include "io/config.h"
#include "models/layers.h"

namespace chipmunk {

/// T5EncoderModel's settings (v1.1: gated feed-forward), names as in transformers' config.json.
struct T5Config {
  int64_t vocab_size = 32128;
  int64_t d_model = 4096, d_kv = 64, d_ff = 10240;
  int64_t num_layers = 24, num_heads = 64;
  int64_t relative_attention_num_buckets = 32, relative_attention_max_distance = 128;
  float layer_norm_epsilon = 1e-6f;

  int64_t attention_dim() const { return d_kv * num_heads; }

  static T5Config from_json(const JsonConfig& json);
};

struct T5Layer {
  Tensor attention_norm, feed_forward_norm;  // [d_model]
  ConcatLinear qkv;
  Linear attention_out;
  Linear gate, up, down;  // down(gelu_tanh(gate(x)) * up(x))
};

/// The T5 v1.1 encoder. Attention has no 1/sqrt(d) factor; block 0's relative bias serves all blocks.
struct T5Encoder {
  T5Config config;
  Tensor token_embedding;
  Tensor relative_bias_table;  // [buckets, heads]
  std::vector<T5Layer> layers;
  Tensor final_norm;

  static T5Encoder bind(const T5Config& config, WeightMap& weights);

  /// ids: token ids [batch][tokens], padded to equal length; no mask: padding is encoded and attended to.
  /// Returns [B, T, d_model]. Observed names: hidden.<i> after block i (1-based).
  Tensor forward(const Context& context, const std::vector<std::vector<int32_t>>& ids,
                 const TensorObserver& observer = {}) const;
};

/// T5's bidirectional bucket of key position minus query position: exact near zero, logarithmic further out.
int64_t t5_relative_bucket(int64_t relative_position, int64_t num_buckets, int64_t max_distance);

}  // namespace chipmunk
