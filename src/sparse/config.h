#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace chipmunk {

/// How a sparse step's attention over the kept columns joins what was stored for the others (docs/method.md).
enum class AttentionCombine {
  kDifference,  ///< the original's: output = cache + A_S, where cache = dense - A_S of the last full step
  kMerge,       ///< two softmax partials merged exactly; what is stored is the partial over the unkept columns
};

enum class StepCachingMode {
  kList,      ///< the steps of skip_step_schedule are skipped
  kAdaptive,  ///< steps whose estimated movement stays below the threshold are skipped
};

/// Settings of the sparse method. Every member has the name and default of the original's YAML key; sections that are
/// absent from a file are off, except attn and mlp, which take their defaults.
struct SparsityConfig {
  struct Mlp {
    bool is_enabled = true;
    bool is_fp8 = false;             ///< no effect: see LoadOptions::fp8
    std::optional<double> top_keys;  ///< fraction of hidden features, [0, 1]; required while enabled
    double random_keys = 0.05;       ///< additional fraction drawn at random, [0, 1]
    int full_step_every = 10;        ///< at least 1
    int block_mask_cache = 2;        ///< from step 10 on, features are chosen on every such step, >= 1
    int first_n_dense_layers = 2;

    /// Ours: ascending, with step 0; takes the place of full_step_every.
    std::optional<std::vector<int>> full_step_schedule;
    /// Ours: where text has an MLP of its own, beside the image's, it is sparse too (docs/method.md).
    bool include_text = true;
    bool operator==(const Mlp&) const = default;
  };
  struct Patchify {
    bool is_enabled = true;
    int chunk_size_1 = 8;  ///< side of the outer patches, in tokens
    int chunk_size_2 = 4;  ///< side of the inner patches; divides chunk_size_1
    bool operator==(const Patchify&) const = default;
  };
  struct Attn {
    bool is_enabled = true;
    double top_keys = 0.05;        ///< fraction of columns, [0, 1]
    double random_keys = 0.01;     ///< additional fraction drawn at random, [0, 1]; see should_compress_indices
    int local_voxels = 0;          ///< voxels per axis of the static local window; 0 for none
    double local_1d_window = 0.0;  ///< fraction of the columns around each group, [0, 1]; 0 for none
    int first_n_dense_layers = 2;
    int full_step_every = 10;                            ///< at least 1; steps 0 and 1 are full in any case
    std::optional<std::vector<int>> full_step_schedule;  ///< ascending; takes the place of full_step_every
    bool recompute_mask = true;  ///< every full step chooses columns anew; false: only the first one after step 0
    /// false: the top-k columns alone in every group; true: with random and static columns, for video models.
    bool should_compress_indices = true;

    /// Ours: which way to combine. At equal work merge is closer to dense (docs/method.md).
    AttentionCombine combine = AttentionCombine::kMerge;
    /// Ours: all text columns are kept too where should_compress_indices is false.
    bool include_text_columns = false;
    bool operator==(const Attn&) const = default;
  };
  /// Which states lie in host memory between uses. No effect yet. Keys: "attn.out_cache" for attn_out_cache.
  struct Offloading {
    bool global_disable_offloading = false;
    bool mlp_out_cache = false, mlp_indices = false, mlp_counts = false;
    bool mlp_sparse_act_t = false, mlp_blockmean_mid_cache = false;
    bool attn_out_cache = true, attn_indices = true, attn_counts = false, attn_lse_constants = false;
    bool text_encoders = true;
    bool operator==(const Offloading&) const = default;

    /// What a file without the section means.
    static Offloading off();
  };
  struct StepCaching {
    bool is_enabled = true;
    /// Steps on which the transformer is skipped: ascending, never step 0. Full steps are never skipped.
    std::vector<int> skip_step_schedule = default_skip_steps();

    /// Ours: who decides, the list or an estimate made while running.
    StepCachingMode mode = StepCachingMode::kList;
    /// Ours: the adaptive mode skips while the estimated relative movement of the output stays below this; [0, 10].
    double threshold = 0.1;
    bool operator==(const StepCaching&) const = default;

    /// The original's 25 steps, for runs of 50.
    static std::vector<int> default_skip_steps();
  };

  Mlp mlp;
  Patchify patchify;
  Attn attn;
  Offloading offloading;
  StepCaching step_caching;
  /// Calls of the transformer per denoising step, [1, 8]: 2 with separate guidance branches.
  int num_model_invocations_per_inference_step = 1;
  bool operator==(const SparsityConfig&) const = default;

  /// A YAML file merged deeply over the defaults above. The original's files work unchanged: lists may be !!set, keys
  /// of its kernels and bookkeeping are accepted. Keys without an effect are named in one line a kind, appended to
  /// `notices` if it is given.
  /// Throws kNotFound or kIo for files that cannot be read, kInvalidFile for broken YAML, kInvalidConfig with file,
  /// line, key, what was expected and what was found for everything else; for an unknown key, the nearest known one.
  static SparsityConfig load(const std::filesystem::path& path, std::vector<std::string>* notices = nullptr);
  /// The same for text; `where` stands for the file in errors.
  static SparsityConfig parse(std::string_view text, const std::string& where,
                              std::vector<std::string>* notices = nullptr);

  /// Settings by name: "flux", "hunyuan", "demo", each also as "<name>-caching" with the default skip steps.
  /// Throws kInvalidArgument for other names, with the nearest one.
  static SparsityConfig preset(const std::string& name);
  static std::vector<std::string> preset_names();
  /// A preset if `name_or_path` is the name of one, else that file.
  static SparsityConfig load_or_preset(const std::string& name_or_path, std::vector<std::string>* notices = nullptr);

  /// Nothing is sparse, permuted or skipped.
  static SparsityConfig dense();

  /// Checks what a config that was put together in code must fulfil too, as parse does: every value's range, and the
  /// rules between values. Throws kInvalidConfig.
  void validate() const;

  /// All settings as a YAML file that parse reads back as an equal config.
  std::string to_yaml() const;
};

const char* to_string(AttentionCombine combine);
const char* to_string(StepCachingMode mode);

}  // namespace chipmunk
