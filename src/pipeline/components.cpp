#include "pipeline/components.h"

#include <string>
#include <utility>

#include "chipmunk/error.h"
#include "models/inferred_config.h"
#include "models/original_names.h"

namespace chipmunk {
namespace {

namespace fs = std::filesystem;

/// A component's weights under diffusers' names with its config.
struct OpenedComponent {
  WeightMap weights;
  JsonConfig config;
};

/// The config.json that belongs to a path, or an empty path if there is none: beside a file's weights it is used as
/// well, since files inside of diffusers folders are passed singly too.
fs::path config_path(const fs::path& path) {
  const fs::path candidate = (fs::is_directory(path) ? path : path.parent_path()) / "config.json";
  return fs::exists(candidate) ? candidate : fs::path();
}

void check_exists(const fs::path& path, const std::string& what) {
  std::error_code error;
  if (!fs::exists(path, error)) {
    throw Error(ErrorCode::kNotFound, "no such file or folder (" + what + ")", path.string());
  }
}

template <typename Infer>
OpenedComponent open_component(const fs::path& path, WeightMap weights, const JsonConfig& overrides, Infer infer) {
  const fs::path config = config_path(path);
  if (config.empty() && fs::is_directory(path)) {
    throw Error(ErrorCode::kNotFound, "expected a config.json in this folder, found none", path.string());
  }
  JsonConfig json = config.empty() ? infer(weights) : JsonConfig::load(config);
  if (!overrides.keys().empty()) json = json.overlaid_with(overrides);
  return {std::move(weights), std::move(json)};
}

const char* const kPipelineClass = "FluxPipeline";

}  // namespace

FluxTransformer load_flux_transformer(const fs::path& path, const JsonConfig& overrides) {
  WeightMap weights = WeightMap::open(path);
  const bool original = has_original_flux_names(weights);
  if (original) define_diffusers_flux_names(weights);
  OpenedComponent component = open_component(path, std::move(weights), overrides, infer_flux_config);
  FluxConfig config = FluxConfig::from_json(component.config);
  config.norm_out_shift_first = original;
  FluxTransformer model = FluxTransformer::bind(config, component.weights.scope(""));
  component.weights.finish();
  return model;
}

AutoencoderKl load_vae(const Context& context, const fs::path& path, const JsonConfig& overrides) {
  WeightMap weights = WeightMap::open(path);
  if (has_original_vae_names(weights)) define_diffusers_vae_names(weights);
  OpenedComponent component = open_component(path, std::move(weights), overrides, infer_vae_config);
  AutoencoderKl model =
      AutoencoderKl::bind(context, AutoencoderConfig::from_json(component.config), component.weights.scope(""));
  component.weights.finish();
  return model;
}

ClipTextModel load_clip_text(const fs::path& path, const JsonConfig& overrides) {
  OpenedComponent component = open_component(path, WeightMap::open(path), overrides, infer_clip_text_config);
  ClipTextModel model = ClipTextModel::bind(ClipTextConfig::from_json(component.config), component.weights);
  component.weights.finish();
  return model;
}

T5Encoder load_t5_encoder(const fs::path& path, const JsonConfig& overrides) {
  OpenedComponent component = open_component(path, WeightMap::open(path), overrides, infer_t5_config);
  T5Encoder model = T5Encoder::bind(T5Config::from_json(component.config), component.weights);
  component.weights.finish();
  return model;
}

FlowMatchConfig load_scheduler(const fs::path& folder, bool guidance_embeds, const JsonConfig& overrides) {
  JsonConfig json = folder.empty() ? default_flux_scheduler_config(guidance_embeds)
                                   : JsonConfig::load(folder / "scheduler_config.json");
  if (!overrides.keys().empty()) json = json.overlaid_with(overrides);
  const std::string scheduler = json.string_or("_class_name", "FlowMatchEulerDiscreteScheduler");
  if (scheduler != "FlowMatchEulerDiscreteScheduler") {
    throw Error(ErrorCode::kUnsupported, "_class_name: expected FlowMatchEulerDiscreteScheduler, found " + scheduler,
                json.where());
  }
  constexpr int64_t kMaxTokens = int64_t{1} << 32;
  FlowMatchConfig config;
  config.num_train_timesteps = json.integer_or("num_train_timesteps", 1000, 1, kMaxTokens);
  config.shift = json.number_or("shift", 1.0);
  config.use_dynamic_shifting = json.boolean_or("use_dynamic_shifting", false);
  config.base_shift = json.number_or("base_shift", 0.5);
  config.max_shift = json.number_or("max_shift", 1.15);
  config.base_image_seq_len = json.integer_or("base_image_seq_len", 256, 1, kMaxTokens);
  config.max_image_seq_len = json.integer_or("max_image_seq_len", 4096, 1, kMaxTokens);
  if (!(config.shift > 0.0) || config.max_image_seq_len <= config.base_image_seq_len) {
    throw Error(ErrorCode::kInvalidConfig,
                "expected shift > 0 and max_image_seq_len > base_image_seq_len, found " + std::to_string(config.shift) +
                    ", " + std::to_string(config.max_image_seq_len) + ", " + std::to_string(config.base_image_seq_len),
                json.where());
  }
  return config;
}

ComponentPaths resolve_components(const ModelFiles& files) {
  ComponentPaths paths;
  if (!files.model.empty()) {
    check_exists(files.model, "model folder");
    const fs::path index = files.model / "model_index.json";
    if (!fs::exists(index)) {
      throw Error(ErrorCode::kNotFound, "expected a model_index.json in the model folder, found none",
                  files.model.string());
    }
    const std::string pipeline = JsonConfig::load(index).string("_class_name");
    if (pipeline != kPipelineClass) {
      throw Error(ErrorCode::kUnsupported,
                  "_class_name: expected " + std::string(kPipelineClass) + ", found " + pipeline, index.string());
    }
    paths = {files.model / "transformer",    files.model / "vae",       files.model / "text_encoder",
             files.model / "text_encoder_2", files.model / "tokenizer", files.model / "tokenizer_2",
             files.model / "scheduler"};
  }
  const auto choose = [](const fs::path& given, fs::path& path, const std::string& option) {
    if (!given.empty()) path = given;
    if (path.empty()) {
      throw Error(ErrorCode::kInvalidArgument,
                  "no model: give a model folder, or " + option + " among the single files");
    }
    check_exists(path, option);
  };
  choose(files.diffusion_model, paths.transformer, "--diffusion-model");
  choose(files.vae, paths.vae, "--vae");
  choose(files.clip_l, paths.clip, "--clip_l");
  choose(files.t5xxl, paths.t5, "--t5xxl");
  choose(files.clip_tokenizer, paths.clip_tokenizer, "--clip-tokenizer");
  choose(files.t5_tokenizer, paths.t5_tokenizer, "--t5-tokenizer");
  return paths;
}

}  // namespace chipmunk
