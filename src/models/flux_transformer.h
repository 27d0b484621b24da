#pragma once

#include <cstdint>
#include <vector>

#include "io/config.h"
#include "models/flux_rope.h"
#include "models/layers.h"
#include "models/weight_streamer.h"
#include "sparse/transformer_state.h"

namespace chipmunk {

/// FluxTransformer2DModel's settings, names as in diffusers' config.json.
struct FluxConfig {
  int64_t in_channels = 64, out_channels = 64;
  int64_t num_layers = 19, num_single_layers = 38;
  int64_t attention_head_dim = 128, num_attention_heads = 24;
  int64_t joint_attention_dim = 4096, pooled_projection_dim = 768;
  bool guidance_embeds = false;
  std::vector<int64_t> axes_dims_rope = {16, 56, 56};
  /// norm_out.linear holds [shift; scale] (the original files), not [scale; shift] (diffusers).
  bool norm_out_shift_first = false;

  int64_t inner_dim() const { return attention_head_dim * num_attention_heads; }
  int64_t mlp_dim() const { return 4 * inner_dim(); }

  /// Throws kInvalidConfig for a missing key or a value out of range.
  static FluxConfig from_json(const JsonConfig& json);
};

/// Two-layer embedding of a vector: linear_2(silu(linear_1(x))).
struct FluxVectorEmbedder {
  Linear linear_1, linear_2;
};

struct FluxFeedForward {
  Linear in, out;
};

/// The half of a double block that one stream, text or image, has for itself.
struct FluxDoubleStream {
  Linear modulation;  // [6 C]: shift, scale, gate of attention; shift, scale, gate of the MLP
  ConcatLinear qkv;
  Tensor q_norm, k_norm;  // [D]
  Linear attention_out;
  FluxFeedForward feed_forward;
};

struct FluxDoubleBlock {
  FluxDoubleStream image, text;
};

struct FluxSingleBlock {
  Linear modulation;  // [3 C]: shift, scale, gate
  ConcatLinear qkv;
  Tensor q_norm, k_norm;
  Linear mlp_in;
  Linear out;  // [C, C + F]: attention's features first, then the MLP's
};

struct FluxInputs {
  Tensor hidden_states;          ///< [B, image tokens, in_channels], packed latents
  Tensor encoder_hidden_states;  ///< [B, text tokens, joint_attention_dim]
  Tensor pooled_projections;     ///< [B, pooled_projection_dim]
  std::vector<float> timesteps;  ///< one a sample, in [0, 1]
  std::vector<float> guidance;   ///< one a sample; ignored without a guidance embedding
};

/// What time, guidance and pooled text make of the blocks, for several steps of one generation at once: the layers that
/// compute it have a quarter of all weights, which are then read once and not on every step. Filled by the first
/// forward that needs a value.
struct FluxModulation {
  Tensor input;  ///< [steps * B, C]: the activated embedding that all of these layers read
  /// [steps * B, features]: of each double block the text's and the image's, of each single block, of norm_out.
  std::vector<Tensor> values;
};

/// The second weights of the MLPs, transposed, [F, C]: sparse MLPs gather rows of them. Empty tensors where nothing
/// asked for them.
struct TransposedMlpWeights {
  std::vector<Tensor> layers;  ///< double blocks (the image's) first
  std::vector<Tensor> texts;   ///< the text's of the double blocks
};

/// What a forward is part of, besides its inputs.
struct ForwardOptions {
  int guidance_branch = 0;  ///< 0 conditional, 1 unconditional
  TensorObserver observer;  ///< receives intermediates, or empty
  /// The sparse method's state of this generation, at the step that is to run; null: everything is dense.
  SparseTransformerState* sparse = nullptr;
  /// What sparse MLPs read (see add_transposed_mlp_weights); null: each is made when its layer runs.
  const TransposedMlpWeights* transposed_mlps = nullptr;
  /// Is told which block runs, double blocks first; null: all weights are on the device.
  WeightStreamer* weights = nullptr;
  /// FluxTransformer::modulation() of steps of which this one is number modulation_step; null: computed here.
  FluxModulation* modulation = nullptr;
  int64_t modulation_step = 0;
};

/// The FLUX.1 transformer: double blocks, where text and image have their own weights, then single blocks.
/// Text tokens come first in every joint buffer.
struct FluxTransformer {
  FluxConfig config;
  Linear x_embedder, context_embedder;
  FluxVectorEmbedder timestep_embedder, guidance_embedder, text_embedder;
  std::vector<FluxDoubleBlock> double_blocks;
  std::vector<FluxSingleBlock> single_blocks;
  Linear norm_out, proj_out;

  /// Binds every weight under its diffusers name; `weights` records what is missing or misshapen.
  static FluxTransformer bind(const FluxConfig& config, const WeightScope& weights);

  int num_layers() const { return static_cast<int>(double_blocks.size() + single_blocks.size()); }

  /// Makes those that sparse MLPs with this config read and that are not there yet. They take as much memory as the
  /// weights; where those are f8_e4m3 with scales, as they would in the dtype of activations.
  void add_transposed_mlp_weights(const Context& context, const SparsityConfig::Mlp& sparsity,
                                  TransposedMlpWeights* there) const;

  /// Empty, for steps at these times (in [0, 1]) with one prompt and guidance, of batches of pooled.dim(0) samples.
  FluxModulation modulation(const Context& context, const std::vector<float>& timesteps, float guidance,
                            const Tensor& pooled) const;

  /// The predicted velocity, [B, image tokens, out_channels]. rope covers text then image tokens.
  /// The sparse method counts layers through both kinds of blocks; of a double block it takes the joint attention and
  /// the image's MLP, or both MLPs, of a single block both. On a skipped step the blocks' last output is used again.
  /// Observed names: x_embedder, context_embedder, temb, double.<i>.{txt,img}, single.<i>.{txt,img}, norm_out.
  Tensor forward(const Context& context, const FluxInputs& inputs, const RopeTables& rope,
                 const ForwardOptions& options) const;
};

}  // namespace chipmunk
