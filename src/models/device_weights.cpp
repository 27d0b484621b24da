#include "models/device_weights.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "core/work_ahead.h"
#include "models/offloadable_weights.h"
#include "models/packed_weights.h"

namespace chipmunk {
namespace {

class Collector {
 public:
  explicit Collector(std::string name, BlockLinears linears = BlockLinears::kStored) : linears_(linears) {
    group_.name = std::move(name);
  }

  Collector& add(Tensor& tensor) {
    if (!tensor.empty()) group_.tensors.push_back(&tensor);
    return *this;
  }
  Collector& add(Linear& layer) { return add(layer.weight).add(layer.scale).add(layer.bias); }
  Collector& add(ConcatLinear& layer) { return add(layer, BlockLinears::kStored); }
  /// A linear of a block, in what its weights become.
  Collector& add_block_linear(Linear& layer) { return add(layer.weight).add_scales(layer, linears_).add(layer.bias); }
  Collector& add_block_linear(ConcatLinear& layer) { return add(layer, linears_); }
  Collector& add(ops::NormAffine& norm) { return add(norm.weight).add(norm.bias); }
  Collector& add(FluxVectorEmbedder& embedder) { return add(embedder.linear_1).add(embedder.linear_2); }
  Collector& add(FluxDoubleStream& stream) {
    return add(stream.modulation)
        .add_block_linear(stream.qkv)
        .add(stream.q_norm)
        .add(stream.k_norm)
        .add_block_linear(stream.attention_out)
        .add_block_linear(stream.feed_forward.in)
        .add_block_linear(stream.feed_forward.out);
  }
  Collector& add(VaeCoder& coder) {
    const auto add_resnet = [this](VaeResnetBlock& block) { add(block.norm_1).add(block.norm_2); };
    add_resnet(coder.mid.resnet_1);
    add_resnet(coder.mid.resnet_2);
    if (coder.mid.attention) add(coder.mid.attention->norm).add(coder.mid.attention->qkv).add(coder.mid.attention->out);
    for (VaeStage& stage : coder.stages) {
      for (VaeResnetBlock& block : stage.resnets) add_resnet(block);
    }
    return add(coder.norm_out);
  }

  WeightGroup take() { return std::move(group_); }

 private:
  Collector& add(ConcatLinear& layer, BlockLinears linears) {
    // Parts end up side by side (join_adjacent).
    for (Linear& part : layer.parts) add(part.weight);
    for (Linear& part : layer.parts) add_scales(part, linears);
    for (Linear& part : layer.parts) add(part.bias);
    return *this;
  }
  Collector& add_scales(Linear& layer, BlockLinears linears) {
    const bool has_them = !layer.scale.empty();
    if (linears == BlockLinears::kStored || has_them || layer.weight.empty()) return add(layer.scale);
    group_.tensors.push_back(&layer.scale);
    group_.quantized.push_back({&layer.weight, &layer.scale});
    return *this;
  }

  BlockLinears linears_;
  WeightGroup group_;
};

}  // namespace

WeightGroup weight_group_around_blocks(FluxTransformer& model) {
  return Collector("embedders and output")
      .add(model.x_embedder)
      .add(model.context_embedder)
      .add(model.timestep_embedder)
      .add(model.guidance_embedder)
      .add(model.text_embedder)
      .add(model.norm_out)
      .add(model.proj_out)
      .take();
}

std::vector<WeightGroup> weight_groups_of_blocks(FluxTransformer& model, BlockLinears linears) {
  std::vector<WeightGroup> groups;
  for (size_t i = 0; i < model.double_blocks.size(); ++i) {
    FluxDoubleBlock& block = model.double_blocks[i];
    groups.push_back(Collector("double block " + std::to_string(i), linears).add(block.image).add(block.text).take());
  }
  for (size_t i = 0; i < model.single_blocks.size(); ++i) {
    FluxSingleBlock& block = model.single_blocks[i];
    groups.push_back(Collector("single block " + std::to_string(i), linears)
                         .add(block.modulation)
                         .add_block_linear(block.qkv)
                         .add(block.q_norm)
                         .add(block.k_norm)
                         .add_block_linear(block.mlp_in)
                         .add_block_linear(block.out)
                         .take());
  }
  return groups;
}

std::vector<WeightGroup> weight_groups(FluxTransformer& model, BlockLinears linears) {
  std::vector<WeightGroup> groups = weight_groups_of_blocks(model, linears);
  groups.insert(groups.begin(), weight_group_around_blocks(model));
  return groups;
}

void quantize_on_host(const Context& context, FluxTransformer& model) {
  for (const WeightGroup& group : weight_groups_of_blocks(model, BlockLinears::kFp8)) {
    WeightGroup quantized{group.name, {}, group.quantized};
    for (Tensor* tensor : group.tensors) {
      const bool is_part = std::any_of(group.quantized.begin(), group.quantized.end(), [&](const QuantizedWeight& of) {
        return of.weight == tensor || of.scales == tensor;
      });
      if (is_part) quantized.tensors.push_back(tensor);
    }
    const PackedWeights packed(context, quantized);
    const std::vector<PackedWeights> blocks = {packed};
    const std::shared_ptr<Storage> block = context.runtime().allocate(packed.bytes());
    const std::vector<BlockPiece> pieces = cut_into_pieces(blocks);
    WorkAhead quantizing(pieces.size(), [&](size_t i) {
      packed.copy(pieces[i].begin, pieces[i].end, static_cast<char*>(block->data()) + pieces[i].begin);
    });
    quantizing.allow(pieces.size());
    for (size_t i = 0; i < pieces.size(); ++i) quantizing.await(i);
    packed.bind(block);
  }
}

std::vector<WeightGroup> weight_groups(ClipTextModel& model) {
  Collector all("CLIP");
  all.add(model.token_embedding).add(model.position_embedding);
  for (ClipTextLayer& layer : model.layers) {
    all.add(layer.norm_1).add(layer.norm_2).add(layer.qkv).add(layer.attention_out).add(layer.fc1).add(layer.fc2);
  }
  all.add(model.final_norm);
  return {all.take()};
}

std::vector<WeightGroup> weight_groups(T5Encoder& model) {
  std::vector<WeightGroup> groups;
  groups.push_back(Collector("T5 embeddings")
                       .add(model.token_embedding)
                       .add(model.relative_bias_table)
                       .add(model.final_norm)
                       .take());
  for (size_t i = 0; i < model.layers.size(); ++i) {
    T5Layer& layer = model.layers[i];
    groups.push_back(Collector("T5 block " + std::to_string(i))
                         .add(layer.attention_norm)
                         .add(layer.feed_forward_norm)
                         .add(layer.qkv)
                         .add(layer.attention_out)
                         .add(layer.gate)
                         .add(layer.up)
                         .add(layer.down)
                         .take());
  }
  return groups;
}

std::vector<WeightGroup> weight_groups(AutoencoderKl& model) {
  return {Collector("VAE").add(model.encoder).add(model.decoder).take()};
}

void upload_weights(const Context& context, const std::vector<WeightGroup>& groups, const UploadProgress& progress) {
  OffloadableWeights(context, groups).upload(progress);
}

}  // namespace chipmunk
