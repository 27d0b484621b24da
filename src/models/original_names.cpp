#include "models/original_names.h"

#include <string>
#include <utility>
#include <vector>

namespace chipmunk {
namespace {

/// The prefix under which `probe` is found, or nothing.
const char* find_prefix(const WeightMap& weights, const std::vector<const char*>& prefixes, const std::string& probe) {
  for (const char* prefix : prefixes) {
    if (weights.contains(prefix + probe)) return prefix;
  }
  return nullptr;
}

const char* flux_prefix(const WeightMap& weights) {
  return find_prefix(weights, {"", "model.diffusion_model."}, "img_in.weight");
}

const char* vae_prefix(const WeightMap& weights) {
  return find_prefix(weights, {"", "first_stage_model.", "vae."}, "decoder.up.0.block.0.norm1.weight");
}

/// Defines new names for weights of one file; a name that is absent is left for the model to report as missing.
class Renamer {
 public:
  Renamer(WeightMap& weights, std::string prefix) : weights_(weights), prefix_(std::move(prefix)) {}

  bool contains(const std::string& name) const { return weights_.contains(prefix_ + name); }

  void rename(const std::string& from, const std::string& to) {
    if (!contains(from)) return;
    const Tensor tensor = weights_.peek(prefix_ + from);
    weights_.consume(prefix_ + from);
    weights_.define(to, tensor);
  }

  /// Weight and bias.
  void rename_layer(const std::string& from, const std::string& to) {
    rename(from + ".weight", to + ".weight");
    rename(from + ".bias", to + ".bias");
  }

  /// A 1x1 convolution [C, C, 1, 1] as a matrix [C, C].
  void rename_pointwise(const std::string& from, const std::string& to) {
    rename(from + ".bias", to + ".bias");
    if (!contains(from + ".weight")) return;
    Tensor weight = weights_.peek(prefix_ + from + ".weight");
    weights_.consume(prefix_ + from + ".weight");
    if (weight.rank() == 4) weight = weight.reshape({weight.dim(0), -1});
    weights_.define(to + ".weight", weight);
  }

  /// Rows of a fused layer: three parts of `inner` features, the last part (if named) takes the rest.
  void split_layer(const std::string& from, int64_t inner, const std::vector<std::string>& parts) {
    for (const char* suffix : {".weight", ".bias"}) {
      if (!contains(from + suffix)) continue;
      const Tensor fused = weights_.peek(prefix_ + from + suffix);
      const int64_t rows = fused.dim(0);
      // Too few rows for the parts: leave it unused and the parts missing, so that both are reported.
      if (rows < 3 * inner || (parts.size() == 3 && rows != 3 * inner)) continue;
      weights_.consume(prefix_ + from + suffix);
      for (size_t i = 0; i < parts.size(); ++i) {
        const int64_t begin = static_cast<int64_t>(i) * inner;
        const int64_t end = i == 3 ? rows : begin + inner;
        weights_.define(parts[i] + suffix, fused.slice(0, begin, end));
      }
    }
  }

 private:
  WeightMap& weights_;
  std::string prefix_;
};

void rename_double_stream(Renamer& names, const std::string& from, const std::string& to, const std::string& stream,
                          int64_t inner) {
  const bool image = stream == "img";
  const std::string attention = to + "attn.";
  names.rename_layer(from + stream + "_mod.lin", to + (image ? "norm1.linear" : "norm1_context.linear"));
  names.split_layer(
      from + stream + "_attn.qkv", inner,
      image ? std::vector<std::string>{attention + "to_q", attention + "to_k", attention + "to_v"}
            : std::vector<std::string>{attention + "add_q_proj", attention + "add_k_proj", attention + "add_v_proj"});
  names.rename(from + stream + "_attn.norm.query_norm.scale",
               attention + (image ? "norm_q.weight" : "norm_added_q.weight"));
  names.rename(from + stream + "_attn.norm.key_norm.scale",
               attention + (image ? "norm_k.weight" : "norm_added_k.weight"));
  names.rename_layer(from + stream + "_attn.proj", attention + (image ? "to_out.0" : "to_add_out"));
  names.rename_layer(from + stream + "_mlp.0", to + (image ? "ff.net.0.proj" : "ff_context.net.0.proj"));
  names.rename_layer(from + stream + "_mlp.2", to + (image ? "ff.net.2" : "ff_context.net.2"));
}

void rename_vae_coder(Renamer& names, const std::string& coder, bool decoder) {
  const std::string root = coder + ".";
  const std::string stage_name = root + (decoder ? "up." : "down.");
  int64_t stages = 0;
  while (names.contains(stage_name + std::to_string(stages) + ".block.0.norm1.weight")) ++stages;
  const auto rename_resnet = [&names](const std::string& from, const std::string& to) {
    for (const char* part : {".norm1", ".conv1", ".norm2", ".conv2"}) names.rename_layer(from + part, to + part);
    names.rename_layer(from + ".nin_shortcut", to + ".conv_shortcut");
  };
  for (int64_t i = 0; i < stages; ++i) {
    const std::string from = stage_name + std::to_string(i);
    // The original numbers the decoder's stages from the largest resolution, diffusers in the order they run.
    const std::string to =
        root + (decoder ? "up_blocks." + std::to_string(stages - 1 - i) : "down_blocks." + std::to_string(i));
    for (int64_t j = 0; names.contains(from + ".block." + std::to_string(j) + ".norm1.weight"); ++j) {
      rename_resnet(from + ".block." + std::to_string(j), to + ".resnets." + std::to_string(j));
    }
    names.rename_layer(from + (decoder ? ".upsample.conv" : ".downsample.conv"),
                       to + (decoder ? ".upsamplers.0.conv" : ".downsamplers.0.conv"));
  }
  names.rename_layer(root + "norm_out", root + "conv_norm_out");
  rename_resnet(root + "mid.block_1", root + "mid_block.resnets.0");
  rename_resnet(root + "mid.block_2", root + "mid_block.resnets.1");
  const std::string attention = root + "mid_block.attentions.0.";
  names.rename_layer(root + "mid.attn_1.norm", attention + "group_norm");
  names.rename_pointwise(root + "mid.attn_1.q", attention + "to_q");
  names.rename_pointwise(root + "mid.attn_1.k", attention + "to_k");
  names.rename_pointwise(root + "mid.attn_1.v", attention + "to_v");
  names.rename_pointwise(root + "mid.attn_1.proj_out", attention + "to_out.0");
}

}  // namespace

bool has_original_flux_names(const WeightMap& weights) { return flux_prefix(weights) != nullptr; }

void define_diffusers_flux_names(WeightMap& weights) {
  Renamer names(weights, flux_prefix(weights));
  const int64_t inner = weights.shape_of(flux_prefix(weights) + std::string("img_in.weight"))[0];
  names.rename_layer("img_in", "x_embedder");
  names.rename_layer("txt_in", "context_embedder");
  const std::pair<const char*, const char*> embedders[] = {
      {"time_in", "timestep_embedder"}, {"vector_in", "text_embedder"}, {"guidance_in", "guidance_embedder"}};
  for (const auto& [from, to] : embedders) {
    names.rename_layer(from + std::string(".in_layer"), std::string("time_text_embed.") + to + ".linear_1");
    names.rename_layer(from + std::string(".out_layer"), std::string("time_text_embed.") + to + ".linear_2");
  }
  for (int64_t i = 0; names.contains("double_blocks." + std::to_string(i) + ".img_mod.lin.weight"); ++i) {
    const std::string from = "double_blocks." + std::to_string(i) + ".";
    const std::string to = "transformer_blocks." + std::to_string(i) + ".";
    for (const char* stream : {"img", "txt"}) rename_double_stream(names, from, to, stream, inner);
  }
  for (int64_t i = 0; names.contains("single_blocks." + std::to_string(i) + ".linear1.weight"); ++i) {
    const std::string from = "single_blocks." + std::to_string(i) + ".";
    const std::string to = "single_transformer_blocks." + std::to_string(i) + ".";
    names.rename_layer(from + "modulation.lin", to + "norm.linear");
    names.split_layer(from + "linear1", inner, {to + "attn.to_q", to + "attn.to_k", to + "attn.to_v", to + "proj_mlp"});
    names.rename_layer(from + "linear2", to + "proj_out");
    names.rename(from + "norm.query_norm.scale", to + "attn.norm_q.weight");
    names.rename(from + "norm.key_norm.scale", to + "attn.norm_k.weight");
  }
  names.rename_layer("final_layer.linear", "proj_out");
  names.rename_layer("final_layer.adaLN_modulation.1", "norm_out.linear");
}

bool has_original_vae_names(const WeightMap& weights) { return vae_prefix(weights) != nullptr; }

void define_diffusers_vae_names(WeightMap& weights) {
  const std::string prefix = vae_prefix(weights);
  Renamer names(weights, prefix);
  for (const std::string coder : {"encoder", "decoder"}) {
    rename_vae_coder(names, coder, coder == "decoder");
    // These are called the same in both layouts; only a prefix has to go.
    if (prefix.empty()) continue;
    names.rename_layer(coder + ".conv_in", coder + ".conv_in");
    names.rename_layer(coder + ".conv_out", coder + ".conv_out");
  }
  if (!prefix.empty()) {
    names.rename_layer("quant_conv", "quant_conv");
    names.rename_layer("post_quant_conv", "post_quant_conv");
  }
}

}  // namespace chipmunk
