#include "pipeline/flux_components.h"

#include <string>

#include "chipmunk/error.h"
#include "text/tokenizer_factory.h"

namespace chipmunk {

FluxComponents FluxComponents::load(const Context& context, const ModelFiles& files) {
  const ComponentPaths paths = resolve_components(files);
  const JsonConfig config =
      files.model_config.empty() ? JsonConfig::parse("{}", "model config") : JsonConfig::load(files.model_config);
  const auto overrides = [&config](const std::string& component) {
    return config.has(component) ? config.object(component) : JsonConfig::parse("{}", "model config");
  };
  FluxComponents components;
  components.clip_tokenizer = load_clip_tokenizer(paths.clip_tokenizer);
  components.t5_tokenizer = load_t5_tokenizer(paths.t5_tokenizer);
  components.transformer = load_flux_transformer(paths.transformer, overrides("transformer"));
  const FluxConfig& flux = components.transformer.config;
  components.scheduler = load_scheduler(paths.scheduler, flux.guidance_embeds, overrides("scheduler"));
  components.clip = load_clip_text(paths.clip, overrides("text_encoder"));
  components.t5 = load_t5_encoder(paths.t5, overrides("text_encoder_2"));
  components.vae = load_vae(context, paths.vae, overrides("vae"));

  const auto check_match = [](const std::string& what, int64_t expected, int64_t found) {
    if (expected == found) return;
    throw Error(ErrorCode::kInvalidConfig, "the model's parts do not fit together: " + what + " is " +
                                               std::to_string(expected) + " for the transformer, but " +
                                               std::to_string(found) + " for the other part");
  };
  const auto check_vocabulary = [](const char* encoder, const Tokenizer& tokenizer, int64_t vocab_size) {
    if (tokenizer.info().vocab_size <= vocab_size) return;
    throw Error(ErrorCode::kInvalidConfig, "the model's parts do not fit together: " + std::string(encoder) +
                                               "'s tokenizer has " + std::to_string(tokenizer.info().vocab_size) +
                                               " ids, but its text encoder has embeddings for " +
                                               std::to_string(vocab_size));
  };
  check_vocabulary("CLIP", *components.clip_tokenizer, components.clip.config.vocab_size);
  check_vocabulary("T5", *components.t5_tokenizer, components.t5.config.vocab_size);
  check_match("the width of T5's features (joint_attention_dim, d_model)", flux.joint_attention_dim,
              components.t5.config.d_model);
  check_match("the width of CLIP's pooled vector (pooled_projection_dim, hidden_size)", flux.pooled_projection_dim,
              components.clip.config.hidden_size);
  check_match("the size of a packed latent (in_channels, 4 latent_channels)", flux.in_channels,
              4 * components.vae.config.latent_channels);
  check_match("the size of a predicted latent (out_channels, 4 latent_channels)", flux.out_channels,
              4 * components.vae.config.latent_channels);
  return components;
}

}  // namespace chipmunk
