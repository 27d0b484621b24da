#include "support/synthetic_flux.h"

#include <cmath>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "core/context.h"
#include "core/float_formats.h"
#include "core/philox.h"
#include "io/config.h"
#include "io/safetensors.h"

namespace chipmunk::test {
namespace {

namespace fs = std::filesystem;

/// Weights by name, all views of one block of random values, so that a file of gigabytes needs little memory.
class RandomWeights {
 public:
  explicit RandomWeights(int64_t largest) : values_(make_host_tensor({largest}, DType::kBF16)) {
    std::vector<float> normals(1 << 16);
    philox_normals(1, normals);
    // Of the size that keeps activations near one for the widest inputs here.
    for (int64_t i = 0; i < largest; ++i) {
      values_.data_as<uint16_t>()[i] = float_to_bf16(normals[static_cast<size_t>(i) % normals.size()] * 0.01f);
    }
  }

  void add(const std::string& name, const Dims& shape) {
    tensors_[name] = values_.slice(0, 0, numel(shape)).reshape(shape);
  }
  void add_linear(const std::string& name, int64_t out_features, int64_t in_features) {
    add(name + ".weight", {out_features, in_features});
    add(name + ".bias", {out_features});
  }
  const std::map<std::string, Tensor>& tensors() const { return tensors_; }

 private:
  Tensor values_;
  std::map<std::string, Tensor> tensors_;
};

void add_double_block(RandomWeights& weights, const std::string& block, int64_t c, int64_t head_dim) {
  weights.add_linear(block + "norm1.linear", 6 * c, c);
  weights.add_linear(block + "norm1_context.linear", 6 * c, c);
  for (const char* name :
       {"to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0", "to_add_out"}) {
    weights.add_linear(block + "attn." + name, c, c);
  }
  for (const char* name : {"norm_q", "norm_k", "norm_added_q", "norm_added_k"}) {
    weights.add(block + "attn." + name + ".weight", {head_dim});
  }
  for (const char* name : {"ff", "ff_context"}) {
    weights.add_linear(block + name + ".net.0.proj", 4 * c, c);
    weights.add_linear(block + name + ".net.2", c, 4 * c);
  }
}

void add_single_block(RandomWeights& weights, const std::string& block, int64_t c, int64_t head_dim) {
  weights.add_linear(block + "norm.linear", 3 * c, c);
  for (const char* name : {"to_q", "to_k", "to_v"}) weights.add_linear(block + "attn." + name, c, c);
  for (const char* name : {"norm_q", "norm_k"}) weights.add(block + "attn." + name + ".weight", {head_dim});
  weights.add_linear(block + "proj_mlp", 4 * c, c);
  weights.add_linear(block + "proj_out", c, 5 * c);
}

}  // namespace

size_t write_synthetic_flux(const fs::path& fixture, const fs::path& destination, const SyntheticFlux& sizes) {
  for (const fs::directory_entry& entry : fs::directory_iterator(fixture)) {
    if (entry.path().filename() == "transformer") continue;
    fs::create_directories(destination);
    fs::copy(entry.path(), destination / entry.path().filename(), fs::copy_options::recursive);
  }
  const JsonConfig old = JsonConfig::load(fixture / "transformer" / "config.json");
  const int64_t c = sizes.heads * sizes.head_dim;
  const int64_t rope = sizes.head_dim / 8 / 2 * 2;
  const int64_t rest = (sizes.head_dim - rope) / 2;
  const std::string changes = "{\"num_attention_heads\": " + std::to_string(sizes.heads) +
                              ", \"attention_head_dim\": " + std::to_string(sizes.head_dim) +
                              ", \"num_layers\": " + std::to_string(sizes.double_blocks) +
                              ", \"num_single_layers\": " + std::to_string(sizes.single_blocks) +
                              ", \"axes_dims_rope\": [" + std::to_string(rope) + ", " + std::to_string(rest) + ", " +
                              std::to_string(rest) + "]}";
  const fs::path folder = destination / "transformer";
  fs::create_directories(folder);
  std::ofstream(folder / "config.json") << old.overlaid_with(JsonConfig::parse(changes, "synthetic sizes")).to_json();

  RandomWeights weights(6 * c * c);
  weights.add_linear("x_embedder", c, old.integer("in_channels"));
  weights.add_linear("context_embedder", c, old.integer("joint_attention_dim"));
  const std::string embedders = "time_text_embed.";
  for (const char* name : {"timestep_embedder", "guidance_embedder"}) {
    if (std::string(name) == "guidance_embedder" && !old.boolean_or("guidance_embeds", false)) continue;
    weights.add_linear(embedders + name + ".linear_1", c, 256);
    weights.add_linear(embedders + name + ".linear_2", c, c);
  }
  weights.add_linear(embedders + "text_embedder.linear_1", c, old.integer("pooled_projection_dim"));
  weights.add_linear(embedders + "text_embedder.linear_2", c, c);
  for (int64_t i = 0; i < sizes.double_blocks; ++i) {
    add_double_block(weights, "transformer_blocks." + std::to_string(i) + ".", c, sizes.head_dim);
  }
  for (int64_t i = 0; i < sizes.single_blocks; ++i) {
    add_single_block(weights, "single_transformer_blocks." + std::to_string(i) + ".", c, sizes.head_dim);
  }
  weights.add_linear("norm_out.linear", 2 * c, c);
  weights.add_linear("proj_out", old.integer("in_channels"), c);
  const fs::path file = folder / "diffusion_pytorch_model.safetensors";
  write_safetensors(file, weights.tensors());
  return fs::file_size(file);
}

size_t stored_weight_bytes(const fs::path& folder) {
  size_t total = 0;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors") total += fs::file_size(entry.path());
  }
  return total;
}

}  // namespace chipmunk::test
