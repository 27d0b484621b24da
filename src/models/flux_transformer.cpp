#include "models/flux_transformer.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>

#include "chipmunk/error.h"
#include "models/hidden_states.h"
#include "ops/attention.h"
#include "ops/elementwise.h"
#include "ops/fp8_rows.h"
#include "ops/qk_norm_rope.h"

namespace chipmunk {
namespace {

constexpr float kNormEpsilon = 1e-6f;
constexpr int64_t kTimeChannels = 256;
// The model's sinusoidal embeddings take their argument times 1000, the number of training steps.
constexpr float kTimeScale = 1000.0f;

/// [out, in]; f8_e4m3 with scales in the dtype of activations.
Tensor plain_weight(const Context& context, const Linear& layer) {
  return layer.scale ? ops::dequantize_rows(context, layer.weight, layer.scale) : layer.weight;
}

/// [out, in] as dense [in, out].
Tensor transpose(const Context& context, const Tensor& weight) {
  return ops::to_dense(context, weight.permute({1, 0}), weight.dtype());
}

/// What sparse steps read of an MLP's second layer.
Tensor transposed_weight(const Context& context, const Linear& layer) {
  return transpose(context, plain_weight(context, layer));
}

/// q, k, v of a joint [B, T, 3 C] buffer as [B, T, heads, D] views.
struct Qkv {
  Tensor q, k, v;
};

Qkv split_qkv(const Tensor& qkv, int64_t heads) {
  const int64_t channels = qkv.dim(2) / 3;
  return {split_heads(qkv.slice(2, 0, channels), heads), split_heads(qkv.slice(2, channels, 2 * channels), heads),
          split_heads(qkv.slice(2, 2 * channels, 3 * channels), heads)};
}

/// Everything that the blocks of one forward share.
struct Forward {
  const Context& context;
  const FluxConfig& config;
  const RopeTables& rope;
  const ForwardOptions& options;
  int64_t batch, text_tokens, image_tokens;
  Tensor modulation_input;  // silu(temb), [B, C]; empty where all modulations are there

  /// layer of the modulation's input; place: in FluxModulation::values.
  Tensor modulation(const Linear& layer, size_t place) const {
    if (options.modulation == nullptr) return ops::linear(context, modulation_input, layer);
    Tensor& all_steps = options.modulation->values.at(place);
    if (all_steps.empty()) all_steps = ops::linear(context, options.modulation->input, layer);
    const int64_t first = options.modulation_step * batch;
    return all_steps.slice(0, first, first + batch);
  }
  int64_t tokens() const { return text_tokens + image_tokens; }
  Tensor text(const Tensor& joint) const { return joint.slice(1, 0, text_tokens); }
  Tensor image(const Tensor& joint) const { return joint.slice(1, text_tokens, tokens()); }
  Tensor joint_buffer(int64_t channels) const { return context.empty({batch, tokens(), channels}); }
  void observe(const std::string& name, const Tensor& tensor) const {
    if (options.observer) options.observer(name, tensor);
  }
  void attention(int layer, const Qkv& qkv, const Tensor& out, bool overlaps_last = false) const {
    if (options.sparse == nullptr) return ops::attention_into(context, qkv.q, qkv.k, qkv.v, out);
    options.sparse->attention(context, options.guidance_branch, layer, text_tokens, qkv.q, qkv.k, qkv.v, out,
                              overlaps_last);
  }
  void count_dense_mlp(int layer) const {
    options.sparse->count_dense_mlp(layer, batch, tokens(), config.inner_dim(), config.mlp_dim());
  }
  bool has_sparse_mlp(int layer) const { return options.sparse != nullptr && options.sparse->has_sparse_mlp(layer); }
  /// An MLP of this layer; of a double block, the image's or the text's.
  MlpWeights mlp_weights(int layer, const Linear& first, const Linear& second, bool is_text = false) const {
    const TransposedMlpWeights* there = options.transposed_mlps;
    if (there == nullptr) return {first, second, transposed_weight(context, second)};
    return {first, second, (is_text ? there->texts : there->layers).at(static_cast<size_t>(layer))};
  }
  /// Ahead of sparse_mlp(); whether it has queued anything.
  bool prepare_sparse_mlp(int layer, const Tensor& x, const MlpParts& parts) const {
    return options.sparse->prepare_mlp(context, options.guidance_branch, layer, x, parts);
  }
  /// MLP(x) with what the sparse method renews of it.
  Tensor sparse_mlp(int layer, const Tensor& x, const MlpParts& parts, const SparseMlpOptions& mlp = {}) const {
    return options.sparse->mlp(context, options.guidance_branch, layer, x, parts, mlp);
  }
};

/// Part i of a modulation vector [B, count * C].
Tensor chunk(const Tensor& modulation, int64_t channels, int64_t i) {
  return modulation.slice(1, i * channels, (i + 1) * channels);
}

Tensor embed(const Context& context, const FluxVectorEmbedder& embedder, const Tensor& x) {
  const Tensor hidden =
      ops::linear(context, x, embedder.linear_1, {.activation = Activation::kSilu, .gate = {}, .residual = {}});
  return ops::linear(context, hidden, embedder.linear_2);
}

/// Sinusoids of `values` (one a sample, before the factor of 1000) through an embedder: [B, C].
Tensor embed_scalars(const Context& context, const FluxVectorEmbedder& embedder, const std::vector<float>& values) {
  const Tensor host = make_host_tensor({static_cast<int64_t>(values.size())}, DType::kF32);
  std::transform(values.begin(), values.end(), host.data_as<float>(), [](float v) { return v * kTimeScale; });
  return embed(context, embedder, ops::timestep_embedding(context, context.to_device(host), kTimeChannels));
}

void add_into(const Context& context, const Tensor& x, const Tensor& sum) {
  ops::axpby_into(context, 1.0f, x, 1.0f, sum, sum);
}

/// The embedding of time, guidance and text, [B, C].
Tensor time_text_embedding(const Context& context, const FluxTransformer& model, const std::vector<float>& timesteps,
                           const std::vector<float>& guidance, const Tensor& pooled) {
  const Tensor temb = embed_scalars(context, model.timestep_embedder, timesteps);
  if (model.config.guidance_embeds) add_into(context, embed_scalars(context, model.guidance_embedder, guidance), temb);
  add_into(context, embed(context, model.text_embedder, pooled), temb);
  return temb;
}

Tensor activated(const Context& context, const Tensor& temb) {
  return ops::activation(context, Activation::kSilu, temb);
}

/// Places in FluxModulation::values.
size_t double_place(int block, bool is_image) { return static_cast<size_t>(2 * block + (is_image ? 1 : 0)); }
size_t single_place(const FluxConfig& config, int layer) { return static_cast<size_t>(config.num_layers + layer); }
size_t norm_out_place(const FluxConfig& config) {
  return static_cast<size_t>(2 * config.num_layers + config.num_single_layers);
}

/// What makes q, k and v of a stream's rows of the joint buffer.
struct QkvStream {
  const ConcatLinear& layer;
  const Tensor &q_norm, &k_norm;
  int64_t begin, end;
};

/// How q and k are normed, and rotated by the rows' own angles.
ops::QkNormRope norm_rope(const Forward& f, const QkvStream& s) {
  return {s.q_norm, s.k_norm, f.rope.cos.slice(0, s.begin, s.end), f.rope.sin.slice(0, s.begin, s.end), kNormEpsilon};
}

/// q, k and v by one layer.
ops::LinearCall qkv_call(const Forward& f, const Tensor& normed, const QkvStream& s, const Linear& layer,
                         const Tensor& qkv) {
  ops::LinearEpilogue epilogue;
  epilogue.heads = {f.config.num_attention_heads, f.config.attention_head_dim, norm_rope(f, s)};
  return {normed.slice(1, s.begin, s.end), layer, qkv.slice(1, s.begin, s.end), epilogue};
}

/// overlaps_last: see ops::LinearCall.
void qkv_into(const Forward& f, const Tensor& normed, const QkvStream& s, const Tensor& qkv,
              bool overlaps_last = false) {
  const std::vector<Linear> layers = join_adjacent(s.layer);
  if (layers.size() == 1) {
    ops::LinearCall call = qkv_call(f, normed, s, layers[0], qkv);
    call.overlaps_last = overlaps_last;
    return ops::linear_into(f.context, call);
  }
  concat_linear_into(f.context, normed.slice(1, s.begin, s.end), s.layer, qkv.slice(1, s.begin, s.end));
  const Qkv parts = split_qkv(qkv, f.config.num_attention_heads);
  ops::qk_norm_rope(f.context, parts.q.slice(1, s.begin, s.end), parts.k.slice(1, s.begin, s.end), norm_rope(f, s));
}

/// Of two streams, together where each has one layer.
void qkv_into(const Forward& f, const Tensor& normed, const QkvStream& first, const QkvStream& second,
              const Tensor& qkv) {
  const std::vector<Linear> layers = join_adjacent(first.layer), others = join_adjacent(second.layer);
  if (layers.size() == 1 && others.size() == 1) {
    return ops::linear_pair_into(f.context, qkv_call(f, normed, first, layers[0], qkv),
                                 qkv_call(f, normed, second, others[0], qkv));
  }
  qkv_into(f, normed, first, qkv);
  qkv_into(f, normed, second, qkv);
}

/// A stream of a double block: its rows of the joint buffers.
struct Stream {
  const FluxDoubleStream& weights;
  int64_t begin, end;
  Tensor modulation;

  Tensor rows(const Tensor& joint) const { return joint.slice(1, begin, end); }
  QkvStream qkv() const { return {weights.qkv, weights.q_norm, weights.k_norm, begin, end}; }
};

/// out += gate * layer(x), x's and out's rows of the stream.
ops::LinearCall gated_call(const Stream& s, const Tensor& x, const Linear& layer, const Tensor& gate,
                           const Tensor& out) {
  return {s.rows(x), layer, s.rows(out), {Activation::kNone, gate, s.rows(out)}};
}

ops::LinearCall hidden_call(const Stream& s, const Tensor& normed, const Tensor& hidden) {
  return {s.rows(normed), s.weights.feed_forward.in, s.rows(hidden), {Activation::kGeluTanh, {}, {}}};
}

/// The MLPs of a double block: joint += gate * MLP(normed), each stream with its own weights.
void double_mlp(const Forward& f, const Stream& text, const Stream& image, int layer, const Tensor& normed,
                HiddenStates* states) {
  const Tensor& joint = states->joint();
  const int64_t channels = f.config.inner_dim();
  const auto gate = [&](const Stream& s) { return chunk(s.modulation, channels, 5); };
  const auto part = [&](const Stream& s, bool is_text) {
    const FluxFeedForward& mlp = s.weights.feed_forward;
    return MlpPart{s.end - s.begin, f.mlp_weights(layer, mlp.in, mlp.out, is_text)};
  };
  const bool is_sparse = f.has_sparse_mlp(layer);
  if (is_sparse && f.options.sparse->has_sparse_text_mlp() && f.text_tokens > 0) {
    const MlpParts parts = {part(text, true), part(image, false)};
    f.prepare_sparse_mlp(layer, normed, parts);
    const Tensor out = f.sparse_mlp(layer, normed, parts);
    states->add(text.rows(joint), text.rows(out), gate(text));
    return states->add(image.rows(joint), image.rows(out), gate(image));
  }
  const Tensor hidden = f.joint_buffer(f.config.mlp_dim());
  const auto out_call = [&](const Stream& s) {
    return gated_call(s, hidden, s.weights.feed_forward.out, gate(s), joint);
  };
  if (is_sparse) {
    ops::linear_into(f.context, hidden_call(text, normed, hidden));
    ops::linear_into(f.context, out_call(text));
    const MlpParts parts = {part(image, false)};
    f.prepare_sparse_mlp(layer, image.rows(normed), parts);
    const Tensor out = f.sparse_mlp(layer, image.rows(normed), parts, {.dense_rows = f.text_tokens});
    return states->add(image.rows(joint), out, gate(image));
  }
  ops::linear_pair_into(f.context, hidden_call(image, normed, hidden), hidden_call(text, normed, hidden));
  ops::linear_pair_into(f.context, out_call(image), out_call(text));
  if (f.options.sparse != nullptr) f.count_dense_mlp(layer);
}

void double_block(const Forward& f, const FluxDoubleBlock& block, int layer, HiddenStates* states) {
  const Tensor& joint = states->joint();
  const int64_t channels = f.config.inner_dim();
  const Stream text{block.text, 0, f.text_tokens, f.modulation(block.text.modulation, double_place(layer, false))};
  const Stream image{block.image, f.text_tokens, f.tokens(),
                     f.modulation(block.image.modulation, double_place(layer, true))};
  const Tensor normed = f.joint_buffer(channels);
  const auto norm_both = [&](int64_t shift) {
    const auto norm = [&](const Stream& s) {
      const ops::Modulation modulation{chunk(s.modulation, channels, shift), chunk(s.modulation, channels, shift + 1)};
      return HiddenStates::Norm{s.rows(joint), modulation, s.rows(normed)};
    };
    states->norm_into(norm(text), norm(image));
  };
  norm_both(0);
  const Tensor qkv_buffer = f.joint_buffer(3 * channels);
  qkv_into(f, normed, image.qkv(), text.qkv(), qkv_buffer);

  // The normed input is spent: its memory takes the attention's output.
  f.attention(layer, split_qkv(qkv_buffer, f.config.num_attention_heads),
              split_heads(normed, f.config.num_attention_heads));

  const auto attention_out = [&](const Stream& s) {
    return gated_call(s, normed, s.weights.attention_out, chunk(s.modulation, channels, 2), joint);
  };
  ops::linear_pair_into(f.context, attention_out(image), attention_out(text));
  norm_both(3);
  double_mlp(f, text, image, layer, normed, states);
}

/// The output layer's parts: of the attention's features, and of the MLP's with the bias.
Linear attention_part(const Linear& out, int64_t channels) { return {out.weight.slice(1, 0, channels), {}, out.scale}; }
Linear mlp_part(const Linear& out, int64_t channels) {
  return {out.weight.slice(1, channels, out.in_features()), out.bias, out.scale};
}

/// What follows the norm in a single block whose MLP is sparse: joint += gate * (attention_part(attention) + MLP). The
/// choice of features, q, k and v, the MLP and the attention do not depend on their neighbours, so that each begins
/// while the one before it ends. Memory that is freed meanwhile may still be read: their buffers are there before.
void sparse_single_block(const Forward& f, const FluxSingleBlock& block, int layer, const Tensor& normed,
                         const QkvStream& stream, const Tensor& gate, HiddenStates* states) {
  const Tensor& joint = states->joint();
  const int64_t channels = f.config.inner_dim();
  const Tensor qkv = f.joint_buffer(3 * channels), attention = f.joint_buffer(channels);
  const MlpParts mlp = {{f.tokens(), f.mlp_weights(layer, block.mlp_in, mlp_part(block.out, channels))}};
  const bool has_queued = f.prepare_sparse_mlp(layer, normed, mlp);
  qkv_into(f, normed, stream, qkv, has_queued);
  const Tensor mlp_out = f.sparse_mlp(layer, normed, mlp, {.overlaps_last = true});
  const int64_t heads = f.config.num_attention_heads;
  f.attention(layer, split_qkv(qkv, heads), split_heads(attention, heads), true);
  ops::LinearCall out{attention, attention_part(block.out, channels), joint, {Activation::kNone, gate, joint}};
  const bool adds_mlp = ops::fuses_addend(f.context, out);
  if (adds_mlp) out.epilogue.addend = mlp_out;
  ops::linear_into(f.context, out);
  if (!adds_mlp) states->add(joint, mlp_out, gate);
}

void single_block(const Forward& f, const FluxSingleBlock& block, int layer, HiddenStates* states) {
  const Tensor& joint = states->joint();
  const int64_t channels = f.config.inner_dim();
  const Tensor modulation = f.modulation(block.modulation, single_place(f.config, layer));
  const Tensor gate = chunk(modulation, channels, 2);
  const Tensor normed = f.joint_buffer(channels);
  states->norm_into({joint, {chunk(modulation, channels, 0), chunk(modulation, channels, 1)}, normed});
  const QkvStream stream{block.qkv, block.q_norm, block.k_norm, 0, f.tokens()};
  if (f.has_sparse_mlp(layer)) return sparse_single_block(f, block, layer, normed, stream, gate, states);

  const Tensor qkv_buffer = f.joint_buffer(3 * channels);
  qkv_into(f, normed, stream, qkv_buffer);
  const Qkv qkv = split_qkv(qkv_buffer, f.config.num_attention_heads);
  // Attention and MLP write side by side, so that the output layer reads one buffer.
  const Tensor features = f.joint_buffer(channels + f.config.mlp_dim());
  f.attention(layer, qkv, split_heads(features.slice(2, 0, channels), f.config.num_attention_heads));
  ops::linear_into(f.context, normed, block.mlp_in, features.slice(2, channels, features.dim(2)),
                   {Activation::kGeluTanh, {}, {}});
  ops::linear_into(f.context, features, block.out, joint, {Activation::kNone, gate, joint});
  if (f.options.sparse != nullptr) f.count_dense_mlp(layer);
}

/// The joint buffer after all blocks.
Tensor run_blocks(const Forward& f, const FluxTransformer& model, const FluxInputs& inputs) {
  const Tensor joint = f.joint_buffer(f.config.inner_dim());
  ops::linear_into(f.context, inputs.hidden_states, model.x_embedder, f.image(joint));
  ops::linear_into(f.context, inputs.encoder_hidden_states, model.context_embedder, f.text(joint));
  f.observe("x_embedder", f.image(joint));
  f.observe("context_embedder", f.text(joint));

  HiddenStates states(f.context, joint, kNormEpsilon);
  const auto observe_streams = [&](const std::string& name) {
    if (!f.options.observer) return;
    states.settle();
    f.observe(name + ".txt", f.text(joint));
    f.observe(name + ".img", f.image(joint));
  };
  ResidentWeights resident;
  WeightStreamer& weights = f.options.weights != nullptr ? *f.options.weights : resident;
  int layer = 0;
  for (size_t i = 0; i < model.double_blocks.size(); ++i, ++layer) {
    weights.begin_block(layer);
    double_block(f, model.double_blocks[i], layer, &states);
    weights.end_block(layer);
    observe_streams("double." + std::to_string(i));
  }
  for (size_t i = 0; i < model.single_blocks.size(); ++i, ++layer) {
    weights.begin_block(layer);
    single_block(f, model.single_blocks[i], layer, &states);
    weights.end_block(layer);
    observe_streams("single." + std::to_string(i));
  }
  states.settle();
  // Nothing writes to this buffer any more, so that keeping it needs no copy.
  if (f.options.sparse != nullptr && f.options.sparse->keeps_hidden()) {
    f.options.sparse->last_hidden(f.options.guidance_branch) = joint;
  }
  return joint;
}

FluxVectorEmbedder bind_embedder(const WeightScope& weights, int64_t channels, int64_t in_features) {
  return {take_linear(weights, "linear_1", channels, in_features),
          take_linear(weights, "linear_2", channels, channels)};
}

FluxFeedForward bind_feed_forward(const WeightScope& weights, int64_t channels, int64_t mlp_dim) {
  return {take_linear(weights, "net.0.proj", mlp_dim, channels), take_linear(weights, "net.2", channels, mlp_dim)};
}

ConcatLinear bind_qkv(const WeightScope& attention, const char* q, const char* k, const char* v, int64_t channels) {
  return {{take_linear(attention, q, channels, channels), take_linear(attention, k, channels, channels),
           take_linear(attention, v, channels, channels)}};
}

FluxDoubleBlock bind_double_block(const FluxConfig& config, const WeightScope& weights) {
  const int64_t channels = config.inner_dim(), head_dim = config.attention_head_dim;
  const WeightScope attention = weights.scope("attn");
  FluxDoubleBlock block;
  block.image.modulation = take_linear(weights, "norm1.linear", 6 * channels, channels);
  block.image.qkv = bind_qkv(attention, "to_q", "to_k", "to_v", channels);
  block.image.q_norm = attention.take("norm_q.weight", {head_dim});
  block.image.k_norm = attention.take("norm_k.weight", {head_dim});
  block.image.attention_out = take_linear(attention, "to_out.0", channels, channels);
  block.image.feed_forward = bind_feed_forward(weights.scope("ff"), channels, config.mlp_dim());
  block.text.modulation = take_linear(weights, "norm1_context.linear", 6 * channels, channels);
  block.text.qkv = bind_qkv(attention, "add_q_proj", "add_k_proj", "add_v_proj", channels);
  block.text.q_norm = attention.take("norm_added_q.weight", {head_dim});
  block.text.k_norm = attention.take("norm_added_k.weight", {head_dim});
  block.text.attention_out = take_linear(attention, "to_add_out", channels, channels);
  block.text.feed_forward = bind_feed_forward(weights.scope("ff_context"), channels, config.mlp_dim());
  return block;
}

FluxSingleBlock bind_single_block(const FluxConfig& config, const WeightScope& weights) {
  const int64_t channels = config.inner_dim(), head_dim = config.attention_head_dim;
  const WeightScope attention = weights.scope("attn");
  return {take_linear(weights, "norm.linear", 3 * channels, channels),
          bind_qkv(attention, "to_q", "to_k", "to_v", channels),
          attention.take("norm_q.weight", {head_dim}),
          attention.take("norm_k.weight", {head_dim}),
          take_linear(weights, "proj_mlp", config.mlp_dim(), channels),
          take_linear(weights, "proj_out", channels, channels + config.mlp_dim())};
}

}  // namespace

FluxTransformer FluxTransformer::bind(const FluxConfig& config, const WeightScope& weights) {
  const int64_t channels = config.inner_dim();
  FluxTransformer model;
  model.config = config;
  model.x_embedder = take_linear(weights, "x_embedder", channels, config.in_channels);
  model.context_embedder = take_linear(weights, "context_embedder", channels, config.joint_attention_dim);
  const WeightScope embedders = weights.scope("time_text_embed");
  model.timestep_embedder = bind_embedder(embedders.scope("timestep_embedder"), channels, kTimeChannels);
  model.text_embedder = bind_embedder(embedders.scope("text_embedder"), channels, config.pooled_projection_dim);
  if (config.guidance_embeds) {
    model.guidance_embedder = bind_embedder(embedders.scope("guidance_embedder"), channels, kTimeChannels);
  }
  for (int64_t i = 0; i < config.num_layers; ++i) {
    model.double_blocks.push_back(bind_double_block(config, weights.scope("transformer_blocks." + std::to_string(i))));
  }
  for (int64_t i = 0; i < config.num_single_layers; ++i) {
    model.single_blocks.push_back(
        bind_single_block(config, weights.scope("single_transformer_blocks." + std::to_string(i))));
  }
  model.norm_out = take_linear(weights, "norm_out.linear", 2 * channels, channels);
  model.proj_out = take_linear(weights, "proj_out", config.out_channels, channels);
  return model;
}

void FluxTransformer::add_transposed_mlp_weights(const Context& context, const SparsityConfig::Mlp& sparsity,
                                                 TransposedMlpWeights* there) const {
  if (!sparsity.is_enabled) return;
  there->layers.resize(static_cast<size_t>(num_layers()));
  there->texts.resize(double_blocks.size());
  const auto add = [&](size_t layer, const Linear& out, Tensor* transposed) {
    if (static_cast<int>(layer) < sparsity.first_n_dense_layers || !transposed->empty()) return;
    *transposed = transposed_weight(context, out);
  };
  for (size_t i = 0; i < double_blocks.size(); ++i) {
    add(i, double_blocks[i].image.feed_forward.out, &there->layers[i]);
    if (sparsity.include_text) add(i, double_blocks[i].text.feed_forward.out, &there->texts[i]);
  }
  for (size_t i = 0; i < single_blocks.size(); ++i) {
    const size_t layer = double_blocks.size() + i;
    add(layer, mlp_part(single_blocks[i].out, config.inner_dim()), &there->layers[layer]);
  }
}

FluxModulation FluxTransformer::modulation(const Context& context, const std::vector<float>& timesteps, float guidance,
                                           const Tensor& pooled) const {
  const int64_t steps = static_cast<int64_t>(timesteps.size()), batch = pooled.dim(0);
  std::vector<float> times;
  for (float time : timesteps) times.insert(times.end(), static_cast<size_t>(batch), time);
  const Tensor repeated =
      ops::to_dense(context, pooled.reshape({1, batch, pooled.dim(1)}).expand(0, steps), pooled.dtype());
  const Tensor embedding = time_text_embedding(context, *this, times, std::vector<float>(times.size(), guidance),
                                               repeated.reshape({steps * batch, pooled.dim(1)}));
  return {activated(context, embedding), std::vector<Tensor>(norm_out_place(config) + 1)};
}

Tensor FluxTransformer::forward(const Context& context, const FluxInputs& inputs, const RopeTables& rope,
                                const ForwardOptions& options) const {
  const int64_t channels = config.inner_dim();
  Forward f{context,
            config,
            rope,
            options,
            inputs.hidden_states.dim(0),
            inputs.encoder_hidden_states.dim(1),
            inputs.hidden_states.dim(1),
            {}};

  if (options.modulation == nullptr) {
    const Tensor temb =
        time_text_embedding(context, *this, inputs.timesteps, inputs.guidance, inputs.pooled_projections);
    f.observe("temb", temb);
    f.modulation_input = activated(context, temb);
  }

  const Tensor joint = options.sparse != nullptr && options.sparse->skips()
                           ? options.sparse->last_hidden(options.guidance_branch)
                           : run_blocks(f, *this, inputs);

  const Tensor modulation = f.modulation(norm_out, norm_out_place(config));
  const int64_t shift = config.norm_out_shift_first ? 0 : 1;
  const Tensor normed = ops::layer_norm(context, f.image(joint), kNormEpsilon, {},
                                        {chunk(modulation, channels, shift), chunk(modulation, channels, 1 - shift)});
  f.observe("norm_out", normed);
  return ops::linear(context, normed, proj_out);
}

FluxConfig FluxConfig::from_json(const JsonConfig& json) {
  // Far above any published model; keeps products of sizes inside 64 bits.
  constexpr int64_t kMaxSize = 1 << 20;
  FluxConfig config;
  config.in_channels = json.integer("in_channels", 1, kMaxSize);
  config.out_channels = json.integer_or("out_channels", config.in_channels, 1, kMaxSize);
  config.num_layers = json.integer("num_layers", 0, kMaxSize);
  config.num_single_layers = json.integer("num_single_layers", 0, kMaxSize);
  config.attention_head_dim = json.integer("attention_head_dim", 2, kMaxSize);
  config.num_attention_heads = json.integer("num_attention_heads", 1, kMaxSize);
  config.joint_attention_dim = json.integer("joint_attention_dim", 1, kMaxSize);
  config.pooled_projection_dim = json.integer("pooled_projection_dim", 1, kMaxSize);
  config.guidance_embeds = json.boolean_or("guidance_embeds", false);
  if (json.has("axes_dims_rope")) config.axes_dims_rope = json.integers("axes_dims_rope", 2, kMaxSize);
  const int64_t patch_size = json.integer_or("patch_size", 1, 1, kMaxSize);
  if (patch_size != 1) {
    throw Error(ErrorCode::kUnsupported, "patch_size: expected 1, found " + std::to_string(patch_size), json.where());
  }
  const std::vector<int64_t>& axes = config.axes_dims_rope;
  const bool even = std::all_of(axes.begin(), axes.end(), [](int64_t dim) { return dim % 2 == 0; });
  const int64_t sum = std::accumulate(axes.begin(), axes.end(), int64_t{0});
  if (axes.size() != 3 || !even || sum != config.attention_head_dim) {
    throw Error(ErrorCode::kInvalidConfig,
                "axes_dims_rope: expected three even sizes that add up to attention_head_dim = " +
                    std::to_string(config.attention_head_dim) + ", found " + std::to_string(axes.size()) +
                    " that add up to " + std::to_string(sum),
                json.where());
  }
  return config;
}

}  // namespace chipmunk
