#pragma once

#include <filesystem>

#include "chipmunk/pipeline.h"
#include "models/autoencoder_kl.h"
#include "models/clip_text.h"
#include "models/flux_transformer.h"
#include "models/t5_encoder.h"
#include "pipeline/flow_match.h"

/// The parts of a model read from disk, each from a folder with config.json (diffusers), or from one file whose config
/// is inferred. `overrides` is what --model-config says of the component ({} for nothing); it wins.
/// All throw kNotFound, kInvalidFile, kInvalidConfig or kInvalidWeights.
namespace chipmunk {

FluxTransformer load_flux_transformer(const std::filesystem::path& path, const JsonConfig& overrides);
AutoencoderKl load_vae(const Context& context, const std::filesystem::path& path, const JsonConfig& overrides);
ClipTextModel load_clip_text(const std::filesystem::path& path, const JsonConfig& overrides);
T5Encoder load_t5_encoder(const std::filesystem::path& path, const JsonConfig& overrides);
/// folder: with scheduler_config.json; empty for FLUX.1's defaults.
FlowMatchConfig load_scheduler(const std::filesystem::path& folder, bool guidance_embeds, const JsonConfig& overrides);

/// Where each component lies, after the folder's and the single paths are combined.
struct ComponentPaths {
  std::filesystem::path transformer, vae, clip, t5, clip_tokenizer, t5_tokenizer, scheduler;
};

/// Throws kInvalidArgument if a component is given nowhere, kNotFound for paths that do not exist, kUnsupported for a
/// model folder of another pipeline class.
ComponentPaths resolve_components(const ModelFiles& files);

}  // namespace chipmunk
