#include "sparse/config_fields.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace chipmunk {
namespace {

// Far beyond any run, and exact in every type that holds it.
constexpr double kMaxSteps = 1000000, kMaxLayers = 100000, kMaxTile = 65536;
constexpr double kMaxPatch = 4096, kMaxVoxels = 65536, kMaxInvocations = 8, kMaxThreshold = 10;

// The accessor of a member, given as a path from the config.
#define CHIPMUNK_MEMBER(type, member) Member<type>([](SparsityConfig& c) -> type& { return c.member; })

using OptionalNumber = std::optional<double>;
using Steps = std::vector<int>;
using OptionalSteps = std::optional<std::vector<int>>;

std::vector<ConfigField> top_level_fields() {
  return {
      {"", "num_model_invocations_per_inference_step", CHIPMUNK_MEMBER(int, num_model_invocations_per_inference_step),
       1, kMaxInvocations},
      {"", "should_profile", IgnoredBoolean{}, 0, 0, KeyEffect::kBookkeeping},
      {"", "generation_index", IgnoredInteger{}, 0, kMaxSteps, KeyEffect::kBookkeeping},
      {"", "steps", IgnoredInteger{}, 1, kMaxSteps, KeyEffect::kBookkeeping},
      {"", "world_size", IgnoredInteger{}, 1, kMaxSteps, KeyEffect::kBookkeeping},
  };
}

std::vector<ConfigField> attn_fields() {
  return {
      {"attn", "is_enabled", CHIPMUNK_MEMBER(bool, attn.is_enabled)},
      {"attn", "top_keys", CHIPMUNK_MEMBER(double, attn.top_keys), 0, 1},
      {"attn", "random_keys", CHIPMUNK_MEMBER(double, attn.random_keys), 0, 1},
      {"attn", "local_voxels", CHIPMUNK_MEMBER(int, attn.local_voxels), 0, kMaxVoxels},
      {"attn", "local_1d_window", CHIPMUNK_MEMBER(double, attn.local_1d_window), 0, 1},
      {"attn", "first_n_dense_layers", CHIPMUNK_MEMBER(int, attn.first_n_dense_layers), 0, kMaxLayers},
      {"attn", "full_step_every", CHIPMUNK_MEMBER(int, attn.full_step_every), 1, kMaxSteps},
      {"attn", "full_step_schedule", CHIPMUNK_MEMBER(OptionalSteps, attn.full_step_schedule), 0, kMaxSteps},
      {"attn", "recompute_mask", CHIPMUNK_MEMBER(bool, attn.recompute_mask)},
      {"attn", "should_compress_indices", CHIPMUNK_MEMBER(bool, attn.should_compress_indices)},
      {"attn", "combine", CHIPMUNK_MEMBER(AttentionCombine, attn.combine)},
      {"attn", "include_text_columns", CHIPMUNK_MEMBER(bool, attn.include_text_columns)},
      {"attn", "counts_multiple_of", IgnoredInteger{}, 1, kMaxTile, KeyEffect::kInternal},
      {"attn", "pad_qkv_before_kernel", IgnoredBoolean{}, 0, 0, KeyEffect::kInternal},
      {"attn", "mbm", IgnoredInteger{}, 1, kMaxTile, KeyEffect::kInternal},
  };
}

std::vector<ConfigField> mlp_fields() {
  return {
      {"mlp", "is_enabled", CHIPMUNK_MEMBER(bool, mlp.is_enabled)},
      {"mlp", "is_fp8", CHIPMUNK_MEMBER(bool, mlp.is_fp8), 0, 0, KeyEffect::kFp8},
      {"mlp", "top_keys", CHIPMUNK_MEMBER(OptionalNumber, mlp.top_keys), 0, 1},
      {"mlp", "random_keys", CHIPMUNK_MEMBER(double, mlp.random_keys), 0, 1},
      {"mlp", "full_step_every", CHIPMUNK_MEMBER(int, mlp.full_step_every), 1, kMaxSteps},
      {"mlp", "block_mask_cache", CHIPMUNK_MEMBER(int, mlp.block_mask_cache), 1, kMaxSteps},
      {"mlp", "first_n_dense_layers", CHIPMUNK_MEMBER(int, mlp.first_n_dense_layers), 0, kMaxLayers},
      {"mlp", "include_text", CHIPMUNK_MEMBER(bool, mlp.include_text)},
      {"mlp", "full_step_schedule", CHIPMUNK_MEMBER(OptionalSteps, mlp.full_step_schedule), 0, kMaxSteps},
      {"mlp", "counts_multiple_of", IgnoredInteger{}, 1, kMaxTile, KeyEffect::kInternal},
      {"mlp", "bm", IgnoredInteger{}, 1, kMaxTile, KeyEffect::kInternal},
      {"mlp", "mbm", IgnoredInteger{}, 1, kMaxTile, KeyEffect::kInternal},
  };
}

std::vector<ConfigField> patchify_and_step_caching_fields() {
  return {
      {"patchify", "is_enabled", CHIPMUNK_MEMBER(bool, patchify.is_enabled)},
      {"patchify", "chunk_size_1", CHIPMUNK_MEMBER(int, patchify.chunk_size_1), 1, kMaxPatch},
      {"patchify", "chunk_size_2", CHIPMUNK_MEMBER(int, patchify.chunk_size_2), 1, kMaxPatch},
      {"step_caching", "is_enabled", CHIPMUNK_MEMBER(bool, step_caching.is_enabled)},
      // From 1: step 0 has nothing to reuse.
      {"step_caching", "skip_step_schedule", CHIPMUNK_MEMBER(Steps, step_caching.skip_step_schedule), 1, kMaxSteps},
      {"step_caching", "mode", CHIPMUNK_MEMBER(StepCachingMode, step_caching.mode)},
      {"step_caching", "threshold", CHIPMUNK_MEMBER(double, step_caching.threshold), 0, kMaxThreshold},
  };
}

std::vector<ConfigField> offloading_fields() {
  std::vector<ConfigField> fields = {
      {"offloading", "global_disable_offloading", CHIPMUNK_MEMBER(bool, offloading.global_disable_offloading)},
      {"offloading", "mlp.out_cache", CHIPMUNK_MEMBER(bool, offloading.mlp_out_cache)},
      {"offloading", "mlp.indices", CHIPMUNK_MEMBER(bool, offloading.mlp_indices)},
      {"offloading", "mlp.counts", CHIPMUNK_MEMBER(bool, offloading.mlp_counts)},
      {"offloading", "mlp.sparse_act_T", CHIPMUNK_MEMBER(bool, offloading.mlp_sparse_act_t)},
      {"offloading", "mlp.blockmean_mid_cache", CHIPMUNK_MEMBER(bool, offloading.mlp_blockmean_mid_cache)},
      {"offloading", "attn.out_cache", CHIPMUNK_MEMBER(bool, offloading.attn_out_cache)},
      {"offloading", "attn.indices", CHIPMUNK_MEMBER(bool, offloading.attn_indices)},
      {"offloading", "attn.counts", CHIPMUNK_MEMBER(bool, offloading.attn_counts)},
      {"offloading", "attn.lse_constants", CHIPMUNK_MEMBER(bool, offloading.attn_lse_constants)},
      {"offloading", "text_encoders", CHIPMUNK_MEMBER(bool, offloading.text_encoders)},
  };
  for (ConfigField& field : fields) field.effect = KeyEffect::kNotYet;
  return fields;
}

#undef CHIPMUNK_MEMBER

std::string join_path(std::string_view section, std::string_view key) {
  std::string path(section);
  if (!section.empty()) path += '.';
  return path.append(key);
}

}  // namespace

std::string ConfigField::path() const { return join_path(section, key); }

const std::vector<ConfigField>& config_fields() {
  static const std::vector<ConfigField> fields = [] {
    std::vector<ConfigField> all;
    for (const auto& part :
         {top_level_fields(), attn_fields(), mlp_fields(), patchify_and_step_caching_fields(), offloading_fields()}) {
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }();
  return fields;
}

const std::vector<std::string_view>& config_sections() {
  static const std::vector<std::string_view> sections = {"attn", "mlp", "patchify", "step_caching", "offloading"};
  return sections;
}

std::string nearest_key(std::string_view section, std::string_view key) {
  int best = std::numeric_limits<int>::max();
  std::string nearest;
  const auto consider = [&](std::string_view known_section, std::string_view known_key) {
    // A right name in the wrong section beats another name in the right one.
    const int distance = edit_distance(key, known_key) + (section == known_section ? 0 : 1);
    if (distance < best) {
      best = distance;
      nearest = join_path(known_section, known_key);
    }
  };
  for (std::string_view name : config_sections()) consider("", name);
  for (const ConfigField& field : config_fields()) consider(field.section, field.key);
  return nearest;
}

int edit_distance(std::string_view a, std::string_view b) {
  // A name that long is like no other; the bound keeps the work small.
  constexpr size_t kLongest = 200;
  a = a.substr(0, kLongest);
  b = b.substr(0, kLongest);
  std::vector<int> previous(b.size() + 1), current(b.size() + 1);
  std::iota(previous.begin(), previous.end(), 0);
  for (size_t i = 0; i < a.size(); ++i) {
    current[0] = static_cast<int>(i) + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const int replaced = previous[j] + (a[i] == b[j] ? 0 : 1);
      current[j + 1] = std::min({replaced, previous[j + 1] + 1, current[j] + 1});
    }
    std::swap(previous, current);
  }
  return previous[b.size()];
}

}  // namespace chipmunk
