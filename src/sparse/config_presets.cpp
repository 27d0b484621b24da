#include <limits>

#include "chipmunk/error.h"
#include "sparse/config.h"
#include "sparse/config_fields.h"

namespace chipmunk {
namespace {

constexpr std::string_view kCachingSuffix = "-caching";

SparsityConfig flux() {
  SparsityConfig config = SparsityConfig::dense();
  config.patchify.is_enabled = true;
  config.attn.is_enabled = config.mlp.is_enabled = true;
  config.attn.top_keys = 0.165;
  config.attn.recompute_mask = false;
  config.attn.should_compress_indices = false;
  config.mlp.top_keys = 0.3;
  config.mlp.random_keys = 0.05;
  return config;
}

SparsityConfig hunyuan() {
  SparsityConfig config = SparsityConfig::dense();
  config.patchify.is_enabled = true;
  config.attn.is_enabled = true;
  config.attn.top_keys = 0.05;
  config.attn.random_keys = 0.01;
  config.attn.full_step_schedule = std::vector<int>{0, 1, 10, 40};
  return config;
}

/// For models/scenes at 28 steps, from the grid of docs/method.md: the layout is decided in the first steps, after
/// which more columns and features hardly help; with seven layers no one of them is worth keeping dense.
SparsityConfig demo() {
  SparsityConfig config = flux();
  const std::vector<int> full_steps = {0, 1, 2, 3, 4, 5, 6, 15};
  config.attn.first_n_dense_layers = config.mlp.first_n_dense_layers = 0;
  config.attn.full_step_schedule = config.mlp.full_step_schedule = full_steps;
  config.attn.recompute_mask = true;
  config.attn.top_keys = 0.05;
  config.mlp.top_keys = 0.05;
  config.mlp.random_keys = 0.0;
  return config;
}

struct Preset {
  std::string_view name;
  SparsityConfig (*make)();
};
constexpr Preset kPresets[] = {{"flux", flux}, {"hunyuan", hunyuan}, {"demo", demo}};

std::string nearest_preset(const std::string& name) {
  int best = std::numeric_limits<int>::max();
  std::string nearest;
  for (const std::string& known : SparsityConfig::preset_names()) {
    const int distance = edit_distance(name, known);
    if (distance < best) {
      best = distance;
      nearest = known;
    }
  }
  return nearest;
}

}  // namespace

std::vector<std::string> SparsityConfig::preset_names() {
  std::vector<std::string> names;
  for (const Preset& preset : kPresets) {
    names.emplace_back(preset.name);
    names.push_back(std::string(preset.name).append(kCachingSuffix));
  }
  return names;
}

SparsityConfig SparsityConfig::preset(const std::string& name) {
  const bool caching = name.ends_with(kCachingSuffix);
  const std::string_view base = std::string_view(name).substr(0, name.size() - (caching ? kCachingSuffix.size() : 0));
  for (const Preset& preset : kPresets) {
    if (preset.name != base) continue;
    SparsityConfig config = preset.make();
    config.step_caching.is_enabled = caching;
    return config;
  }
  throw Error(ErrorCode::kInvalidArgument,
              "unknown preset \"" + name + "\"; the nearest one is " + nearest_preset(name), "sparsity presets");
}

SparsityConfig SparsityConfig::load_or_preset(const std::string& name_or_path, std::vector<std::string>* notices) {
  for (const std::string& name : preset_names()) {
    if (name == name_or_path) return preset(name);
  }
  // A name without a dot or slash is more likely a preset's, misspelt, than a file's.
  if (name_or_path.find_first_of("./\\") == std::string::npos && !std::filesystem::exists(name_or_path)) {
    return preset(name_or_path);
  }
  return load(name_or_path, notices);
}

}  // namespace chipmunk
