#include "flux_workload.h"

#include "models/device_weights.h"
#include "models/flux_rope.h"
#include "ops/elementwise.h"
#include "ops/fp8_rows.h"

namespace chipmunk::cli {
namespace {

constexpr double kRopeTheta = 10000.0;
constexpr float kTimestep = 0.5f, kGuidance = 3.5f;
/// Latents of a patch, which is a token.
constexpr int64_t kPatchLatents = 4;

Linear in_fp8(const Context& context, const Linear& layer) {
  const Tensor weight = ops::to_dense(context, layer.weight, context.activation_dtype());
  const ops::Fp8Rows rows = ops::quantize_rows(context, weight);
  return {rows.values, layer.bias, rows.scales};
}

/// Its parts lie side by side, as they did.
ConcatLinear in_fp8(const Context& context, const ConcatLinear& layer) {
  ConcatLinear result;
  for (const Linear& joined : join_adjacent(layer)) {
    const Linear whole = in_fp8(context, joined);
    int64_t begin = 0;
    while (begin < whole.out_features()) {
      const int64_t end = begin + layer.parts[result.parts.size()].out_features();
      result.parts.push_back({whole.weight.slice(0, begin, end),
                              whole.bias ? whole.bias.slice(0, begin, end) : Tensor(),
                              whole.scale.slice(0, begin, end)});
      begin = end;
    }
  }
  return result;
}

}  // namespace

FluxTransformer with_fp8_linears(const Context& context, const FluxTransformer& model) {
  FluxTransformer result = model;
  const auto convert = [&](auto& layer) { layer = in_fp8(context, layer); };
  for (FluxDoubleBlock& block : result.double_blocks) {
    for (FluxDoubleStream* stream : {&block.image, &block.text}) {
      convert(stream->qkv);
      convert(stream->attention_out);
      convert(stream->feed_forward.in);
      convert(stream->feed_forward.out);
    }
  }
  for (FluxSingleBlock& block : result.single_blocks) {
    convert(block.qkv);
    convert(block.mlp_in);
    convert(block.out);
  }
  return result;
}

size_t weight_bytes(FluxTransformer model) {
  size_t total = 0;
  for (const WeightGroup& group : weight_groups(model)) {
    for (const Tensor* tensor : group.tensors) total += tensor->bytes();
  }
  return total;
}

FluxInputs FluxWorkload::inputs(int which) const {
  return {latents[which], prompt.features, prompt.pooled, {kTimestep}, {kGuidance}};
}

FluxWorkload make_flux_workload(RandomTensors& random, const FluxConfig& config, int64_t latent_height,
                                int64_t latent_width, int64_t text_tokens) {
  const Context& context = random.context();
  const DType dtype = context.activation_dtype();
  FluxWorkload workload;
  workload.model = random_flux(random, config);
  workload.geometry = {config.in_channels / kPatchLatents, latent_height, latent_width};
  for (Tensor& latents : workload.latents) {
    latents = random.normal({1, workload.geometry.tokens(), config.in_channels}, dtype, 1.0f);
  }
  workload.prompt = {random.normal({1, text_tokens, config.joint_attention_dim}, dtype, 1.0f),
                     random.normal({1, config.pooled_projection_dim}, dtype, 1.0f)};
  workload.rope = make_rope_tables(
      context, flux_positions(text_tokens, workload.geometry.grid_height(), workload.geometry.grid_width()),
      config.axes_dims_rope, kRopeTheta);
  return workload;
}

}  // namespace chipmunk::cli
