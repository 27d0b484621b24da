#pragma once

#include "io/config.h"
#include "io/weight_map.h"

/// Configs of models that come as single files without a config.json: sizes are read off the weights (under
/// diffusers' and transformers' names), and what weights cannot tell has FLUX.1's values.
/// Each throws kInvalidWeights if the weights that the sizes are read from are not there.
namespace chipmunk {

JsonConfig infer_flux_config(const WeightMap& weights);
JsonConfig infer_vae_config(const WeightMap& weights);
JsonConfig infer_clip_text_config(const WeightMap& weights);
JsonConfig infer_t5_config(const WeightMap& weights);
/// FLUX.1-dev's scheduler, or FLUX.1-schnell's where the transformer has no guidance embedding.
JsonConfig default_flux_scheduler_config(bool guidance_embeds);

}  // namespace chipmunk
