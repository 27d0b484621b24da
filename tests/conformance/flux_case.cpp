#include "conformance/flux_case.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <functional>
#include <utility>
#include <vector>

#include "chipmunk/error.h"
#include "models/device_weights.h"
#include "ops/elementwise.h"
#include "pipeline/flux_pipeline.h"
#include "text/tokenizer_factory.h"

namespace chipmunk::conformance {
namespace {

namespace fs = std::filesystem;

Tensor to_activation(const Context& context, const Tensor& host) {
  return ops::to_dense(context, context.to_device(host), context.activation_dtype());
}

/// Channels-last to the fixtures' [B, C, H, W].
Tensor nchw(const Context& context, const Tensor& image) { return host_f32(context, image.permute({0, 3, 1, 2})); }

std::vector<float> to_vector(const Tensor& tensor) {
  const float* data = tensor.data_as<float>();
  return std::vector<float>(data, data + tensor.numel());
}

/// A loaded model with its weights on the context's device.
template <class Model>
Model on_device(const Context& context, Model model) {
  upload_weights(context, weight_groups(model), {});
  return model;
}

JsonConfig no_overrides() { return JsonConfig::parse("{}", "no overrides"); }

/// The case's model, whichever layout it has.
class CaseModel {
 public:
  CaseModel(const CaseFolder& folder) : folder_(folder) {}

  bool single_files() const { return folder_.params().has("vae_norm_num_groups"); }
  fs::path component(const std::string& name) const { return folder_.model() / name; }

  FluxTransformer transformer() const {
    if (!single_files()) return load_flux_transformer(component("transformer"), no_overrides());
    std::string axes;
    for (int64_t dim : folder_.params().integers("axes_dims_rope")) {
      axes += (axes.empty() ? "" : ", ") + std::to_string(dim);
    }
    return load_flux_transformer(file_with("img_in.weight"),
                                 JsonConfig::parse("{\"axes_dims_rope\": [" + axes + "]}", "case params"));
  }

  AutoencoderKl vae(const Context& context) const {
    if (!single_files()) return load_vae(context, component("vae"), no_overrides());
    const std::string groups = std::to_string(folder_.params().integer("vae_norm_num_groups"));
    return load_vae(context, file_with("decoder.conv_in.weight"),
                    JsonConfig::parse("{\"norm_num_groups\": " + groups + "}", "case params"));
  }

 private:
  fs::path file_with(const std::string& weight) const {
    for (const fs::directory_entry& entry : fs::directory_iterator(folder_.model())) {
      if (entry.path().extension() == ".safetensors" && SafetensorsFile(entry.path()).contains(weight)) {
        return entry.path();
      }
    }
    throw Error(ErrorCode::kNotFound, "no file with " + weight, folder_.model().string());
  }

  const CaseFolder& folder_;
};

/// The tables as the fixtures give them: each angle twice, for both elements of its pair.
Tensor repeat_pairs(const Context& context, const Tensor& table) {
  const Tensor pairs = context.to_host(table).unsqueeze(2).expand(2, 2);
  return context.to_host(pairs).reshape({table.dim(0), 2 * table.dim(1)});
}

std::vector<double> positions(const CaseFolder& folder) {
  std::vector<double> values;
  for (const char* name : {"transformer.txt_ids", "transformer.img_ids"}) {
    for (float value : to_vector(folder.input(name))) values.push_back(static_cast<double>(value));
  }
  return values;
}

void compute_transformer(const Context& context, const CaseFolder& folder, Results& results) {
  const FluxTransformer model = on_device(context, CaseModel(folder).transformer());
  const RopeTables rope = make_rope_tables(context, positions(folder), model.config.axes_dims_rope, 10000.0);
  const auto forward = [&](const std::string& from, const std::string& suffix, const TensorObserver& observer) {
    FluxInputs inputs;
    inputs.hidden_states = to_activation(context, folder.input(from + "hidden_states"));
    inputs.encoder_hidden_states = to_activation(context, folder.input(from + "encoder_hidden_states"));
    inputs.pooled_projections = to_activation(context, folder.input(from + "pooled_projections"));
    inputs.timesteps = to_vector(folder.input(from + "timestep" + suffix));
    if (model.config.guidance_embeds) inputs.guidance = to_vector(folder.input(from + "guidance" + suffix));
    return host_f32(context, model.forward(context, inputs, rope, {0, observer}));
  };
  for (int i = 0; folder.has_input("transformer.timestep" + std::to_string(i)); ++i) {
    const std::string run = "transformer.t" + std::to_string(i) + ".";
    results[run + "rope_cos"] = repeat_pairs(context, rope.cos);
    results[run + "rope_sin"] = repeat_pairs(context, rope.sin);
    results[run + "out"] = forward("transformer.", std::to_string(i), [&](std::string_view name, const Tensor& value) {
      results[run + std::string(name)] = host_f32(context, value);
    });
  }
  if (folder.has_input("transformer.batch.timestep")) {
    results["transformer.batch.out"] = forward("transformer.batch.", "", {});
  }
}

/// <prefix>sigmas with the terminal 0, and <prefix>timesteps without it.
void store_sigmas(const std::string& prefix, const std::vector<float>& sigmas, const FlowMatchConfig& config,
                  Results& results) {
  const int64_t count = static_cast<int64_t>(sigmas.size());
  const Tensor sigma_tensor = make_host_tensor({count}, DType::kF32);
  const Tensor timesteps = make_host_tensor({count - 1}, DType::kF32);
  for (int64_t i = 0; i < count; ++i) {
    const float sigma = sigmas[static_cast<size_t>(i)];
    sigma_tensor.data_as<float>()[i] = sigma;
    if (i + 1 < count) timesteps.data_as<float>()[i] = sigma * static_cast<float>(config.num_train_timesteps);
  }
  results[prefix + "sigmas"] = sigma_tensor;
  results[prefix + "timesteps"] = timesteps;
}

/// Expected names "scheduler.<height>x<width>.n<steps>.{sigmas,timesteps}".
void compute_scheduler(const Context&, const CaseFolder& folder, Results& results) {
  const FlowMatchConfig config = load_scheduler(CaseModel(folder).component("scheduler"), true, no_overrides());
  for (const auto& [name, expectation] : folder.expected()) {
    int width = 0, height = 0, steps = 0;
    if (std::sscanf(name.c_str(), "scheduler.%dx%d.n%d.sigmas", &height, &width, &steps) != 3) continue;
    const std::vector<float> sigmas = flow_match_sigmas(config, steps, (width / 16) * (height / 16));
    store_sigmas(name.substr(0, name.rfind('.') + 1), sigmas, config, results);
  }
}

void compute_tokens(const Tokenizer& tokenizer, const std::string& prefix, const CaseFolder& folder, Results& results) {
  const int64_t count = static_cast<int64_t>(folder.prompts().size());
  const int64_t length = folder.expected_shape(prefix + "ids")[1];
  const Tensor ids = make_host_tensor({count, length}, DType::kI32);
  const Tensor lengths = make_host_tensor({count}, DType::kI32);
  const Tensor full_lengths = make_host_tensor({count}, DType::kI32);
  for (int64_t i = 0; i < count; ++i) {
    const FixedLengthTokens tokens = encode_to_length(tokenizer, folder.prompts()[static_cast<size_t>(i)], length);
    std::copy(tokens.ids.begin(), tokens.ids.end(), ids.data_as<int32_t>() + i * length);
    lengths.data_as<int32_t>()[i] = static_cast<int32_t>(tokens.length_before_padding);
    full_lengths.data_as<int32_t>()[i] = static_cast<int32_t>(tokens.full_length);
  }
  results[prefix + "ids"] = ids;
  results[prefix + "len"] = lengths;
  results[prefix + "full_len"] = full_lengths;
}

void compute_tokenizers(const Context&, const CaseFolder& folder, Results& results) {
  const CaseModel model(folder);
  compute_tokens(*load_clip_tokenizer(model.component("tokenizer")), "tokens.clip.", folder, results);
  compute_tokens(*load_t5_tokenizer(model.component("tokenizer_2")), "tokens.t5.", folder, results);
}

/// Token ids of the prompts that params.text_prompts lists.
std::vector<TokenIds> text_prompt_ids(const Tokenizer& tokenizer, const CaseFolder& folder, int64_t length) {
  std::vector<TokenIds> ids;
  for (int64_t index : folder.params().integers("text_prompts")) {
    ids.push_back(encode_to_length(tokenizer, folder.prompts().at(static_cast<size_t>(index)), length).ids);
  }
  return ids;
}

/// The first samples of a batch, as many as the expectation has.
void store_first_samples(const CaseFolder& folder, const std::string& name, const Tensor& value, Results& results) {
  if (folder.expected().count(name) != 0) results[name] = value.slice(0, 0, folder.expected_shape(name)[0]);
}

void compute_clip(const Context& context, const CaseFolder& folder, Results& results) {
  const CaseModel model(folder);
  const ClipTextModel clip = on_device(context, load_clip_text(model.component("text_encoder"), no_overrides()));
  const auto tokenizer = load_clip_tokenizer(model.component("tokenizer"));
  const int64_t length = folder.expected_shape("clip.last_hidden_state")[1];
  const ClipTextOutput output = clip.forward(
      context, text_prompt_ids(*tokenizer, folder, length), [&](std::string_view name, const Tensor& value) {
        if (name == "hidden.1") store_first_samples(folder, "clip.hidden1", host_f32(context, value), results);
      });
  store_first_samples(folder, "clip.last_hidden_state", host_f32(context, output.last_hidden_state), results);
  store_first_samples(folder, "clip.pooled", host_f32(context, output.pooled), results);
}

void compute_t5(const Context& context, const CaseFolder& folder, Results& results) {
  const CaseModel model(folder);
  const T5Encoder t5 = on_device(context, load_t5_encoder(model.component("text_encoder_2"), no_overrides()));
  const auto tokenizer = load_t5_tokenizer(model.component("tokenizer_2"));
  const int64_t length = folder.params().integer("t5_embed_len");
  const Tensor output =
      t5.forward(context, text_prompt_ids(*tokenizer, folder, length), [&](std::string_view name, const Tensor& value) {
        if (name == "hidden.1") store_first_samples(folder, "t5.hidden1", host_f32(context, value), results);
      });
  store_first_samples(folder, "t5.last_hidden_state", host_f32(context, output), results);
  // The reference's list of hidden states ends with the normed one.
  if (t5.layers.size() == 1) store_first_samples(folder, "t5.hidden1", host_f32(context, output), results);
}

/// The tile sizes of the fixtures' tiled runs (case.json, "vae.tiled_decode.out").
constexpr VaeTileSettings kFixtureTiles{32, 4, 0.25};

void compute_vae(const Context& context, const CaseFolder& folder, Results& results) {
  const AutoencoderKl vae = on_device(context, CaseModel(folder).vae(context));
  const auto channels_last = [&](const std::string& name) {
    return to_activation(context, context.to_host(folder.input(name).permute({0, 2, 3, 1})));
  };
  const Tensor latent = channels_last("vae.latent");
  results["vae.decode.out"] = nchw(context, vae.decode(context, latent, [&](std::string_view name, const Tensor& x) {
    results["vae.decode." + std::string(name)] = nchw(context, x);
  }));
  results["vae.tiled_decode.out"] = nchw(context, vae.decode_tiled(context, latent, kFixtureTiles));
  if (!folder.has_input("vae.image")) return;
  const Tensor image = channels_last("vae.image");
  const LatentDistribution encoded = vae.encode(context, image);
  results["vae.encode.mean"] = nchw(context, encoded.mean);
  results["vae.encode.logvar"] = nchw(context, encoded.logvar);
  results["vae.tiled_encode.mean"] = nchw(context, vae.encode_tiled(context, image, kFixtureTiles).mean);
}

void compute_pipeline(FluxPipeline& pipeline, const CaseFolder& folder, const std::string& run, Results& results) {
  const Context& context = pipeline.context();
  const JsonConfig params = folder.params().object("pipelines").object(run);
  const std::string prefix = "pipeline." + run + ".";
  ProgressSink progress;
  DenoiseInputs inputs;
  inputs.geometry =
      pipeline.geometry(static_cast<int>(params.integer("width")), static_cast<int>(params.integer("height")));
  inputs.prompt =
      pipeline.encode_prompt(params.string("prompt_text"), static_cast<int>(params.integer("max_len")), progress);
  inputs.guidance_scale = static_cast<float>(params.number("guidance"));
  inputs.true_cfg_scale = 1.0f;
  const Tensor noise = context.to_device(folder.input(prefix + "latents"));
  // A copy: the loop overwrites its latents, and the input is a read-only mapping.
  inputs.latents = context.empty(noise.shape(), DType::kF32);
  ops::copy_into(context, noise, inputs.latents);

  const int steps = static_cast<int>(params.integer("steps"));
  const std::vector<float> sigmas = flow_match_sigmas(pipeline.components().scheduler, steps, inputs.geometry.tokens());
  store_sigmas(prefix, sigmas, pipeline.components().scheduler, results);
  const Tensor step_latents = context.empty({steps, noise.dim(0), noise.dim(1), noise.dim(2)}, DType::kF32);
  pipeline.denoise(inputs, pipeline.schedule(steps, inputs.geometry), progress, [&](const Step& step, const Tensor&) {
    ops::copy_into(context, inputs.latents, step_latents.select(0, step.index));
  });
  results[prefix + "step_latents"] = host_f32(context, step_latents);
  const Tensor decoder_input = pipeline.decoder_input(inputs.latents, inputs.geometry);
  results[prefix + "vae_input"] = nchw(context, decoder_input);
  results[prefix + "image"] = nchw(context, pipeline.decode(decoder_input, false));
}

void compute_pipelines(const Context& context, const CaseFolder& folder, Results& results) {
  ModelFiles files;
  files.model = folder.model();
  FluxPipeline pipeline(context, FluxComponents::load(context, files));
  for (const std::string& run : folder.params().object("pipelines").keys()) {
    compute_pipeline(pipeline, folder, run, results);
  }
}

void compute_time_projection(const Context& context, const CaseFolder& folder, Results& results) {
  const int64_t channels = folder.expected_shape("time_proj.values")[1];
  results["time_proj.values"] = host_f32(
      context, ops::timestep_embedding(context, context.to_device(folder.input("time_proj.arguments")), channels));
}

}  // namespace

Results compute_flux_case(const Context& context, const CaseFolder& folder,
                          std::map<std::string, std::string>& failures) {
  using Compute = std::function<void(const Context&, const CaseFolder&, Results&)>;
  const std::pair<const char*, Compute> groups[] = {{"time_proj.", compute_time_projection},
                                                    {"transformer.", compute_transformer},
                                                    {"scheduler.", compute_scheduler},
                                                    {"tokens.", compute_tokenizers},
                                                    {"clip.", compute_clip},
                                                    {"t5.", compute_t5},
                                                    {"vae.", compute_vae},
                                                    {"pipeline.", compute_pipelines}};
  Results results;
  for (const auto& [prefix, compute] : groups) {
    const auto first = folder.expected().lower_bound(prefix);
    if (first == folder.expected().end() || !first->first.starts_with(prefix)) continue;
    try {
      compute(context, folder, results);
    } catch (const std::exception& error) {
      failures[prefix] = error.what();
    }
  }
  return results;
}

}  // namespace chipmunk::conformance
