#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/context.h"

namespace chipmunk::cli {

/// A problem size of `bench mlp`: one layer's MLP.
struct MlpPreset {
  std::string name;
  int64_t tokens, channels, features, out_channels;
};

/// flux and hunyuan are the models' blocks, flux-image a double block's image stream; tiny runs anywhere in a second.
const std::vector<MlpPreset>& mlp_presets();

/// One way to compute the layer, or a part of one.
struct MlpResult {
  std::string preset, kernel;
  std::optional<double> top_keys, random_keys;  ///< of sparse steps
  double kept = 1.0;                            ///< share of the features that were computed
  /// Of one run.
  double median_ms = 0.0, min_ms = 0.0, max_ms = 0.0;
  double useful_flops = 0.0;             ///< of the two layers; 0 for the selection
  double clock_tflops = 0.0;             ///< of a large matmul in the same rounds
  std::optional<double> relative_error;  ///< of a few tokens against float64, before anything is timed; of ours alone
  std::optional<double> times_dense;     ///< speed-up over our two linears, in the same rounds
  std::optional<double> times_cublas;    ///< over cuBLASLt's pair
};

/// Checks and times dense, full and sparse steps of the presets, with fp8 also sparse steps whose first layer is
/// f8_e4m3; of sparse steps that choose nothing, on a GPU, each of the two matmuls by the GPU's own records as well.
/// progress hears what is being done. Throws kInternal where a result is wrong.
std::vector<MlpResult> bench_mlp(const Context& context, const std::vector<MlpPreset>& presets, int rounds, bool fp8,
                                 const std::function<void(const std::string&)>& progress);

std::string format_mlp_table(const std::vector<MlpResult>& results);

}  // namespace chipmunk::cli
