#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/context.h"
#include "linear_survey.h"
#include "models/autoencoder_kl.h"
#include "models/clip_text.h"
#include "models/flux_transformer.h"
#include "models/t5_encoder.h"
#include "sparse/config.h"

namespace chipmunk::cli {

/// What is measured, at which sizes.
struct FluxBenchOptions {
  FluxConfig transformer;
  T5Config t5;
  ClipTextConfig clip;
  AutoencoderConfig vae;
  int64_t width = 1280, height = 768;  ///< pixels, multiples of twice the VAE's spatial factor
  int64_t text_tokens = 512;           ///< that T5 reads
  int rounds = 5;                      ///< measurements of each stage
  int denoising_steps = 50;            ///< of a whole generation; 0: none is timed
  /// Settings of the sparse method by their names: of the whole generations, and the first one of the sparse step.
  std::vector<std::pair<std::string, SparsityConfig>> sparsities;
  bool with_text = true, with_vae = true;
  bool with_fp8 = false;  ///< also a dense step, and generations, with the blocks' linears in f8_e4m3
  uint64_t seed = 1;      ///< of the weights
};

/// flux-dev: FLUX.1-dev at 1280 x 768; tiny: the same architecture in a few milliseconds on a CPU. Throws
/// kInvalidArgument for other names.
FluxBenchOptions flux_bench_preset(const std::string& name);

/// What some ops of a stage take together.
struct WorkResult {
  int ops = 0;
  double ms = 0.0;          ///< sum of each op's median
  double flops = 0.0;       ///< multiply-adds times two of matmuls, attention and convolutions
  double bytes = 0.0;       ///< inputs and outputs, each once
  double fastest_ms = 0.0;  ///< at the ceilings: what each op's FLOPs or its bytes take, whichever is more
};

struct KindResult {
  std::string kind;
  WorkResult work;
};

/// All linears of one shape and epilogue.
struct LinearResult {
  LinearShape shape;
  WorkResult work;
  std::optional<LinearTimes> alone;  ///< on a GPU
};

/// The fastest that the device does, measured between the rounds of a stage: a linear of clock_size in each dimension,
/// and a copy within the device's memory (bytes read and written).
struct Ceilings {
  double matmul_flops_per_s = 0.0, copy_bytes_per_s = 0.0;
};

/// One stage of a generation.
struct StageResult {
  std::string name;                                    ///< step, fp8 step, sparse step, text or decode
  double median_ms = 0.0, min_ms = 0.0, max_ms = 0.0;  ///< of whole forwards, queued one behind the other
  size_t peak_bytes = 0;                               ///< of the allocator, all weights included
  Ceilings ceilings;
  std::vector<KindResult> kinds;  ///< those that take longest first, as the linears
  /// median_ms less all ops. Timed in separate runs, so that noise may bring it below 0.
  double rest_ms = 0.0;
  /// Of the time of whole forwards, queued one behind the other: some kernel or copy was running. Where CUPTI is.
  std::optional<double> busy_share;
  std::vector<LinearResult> linears;
};

/// Steps of a generation that do the same.
struct StepKindResult {
  std::string attention, mlp;  ///< to_string of AttentionStep and MlpStep
  int steps = 0;
  double ms = 0.0;  ///< median of one, until its result is there
};

/// The denoising of a whole generation.
struct GenerationResult {
  std::string sparsity;  ///< "dense", or a preset or file; with ", fp8" where the blocks' linears are that
  int steps = 0;
  double median_s = 0.0, min_s = 0.0, max_s = 0.0;
  size_t peak_bytes = 0;              ///< of the allocator: weights, states and whatever else is there
  std::vector<StepKindResult> kinds;  ///< dense ones first
};

struct FluxBenchResult {
  std::string device;
  FluxBenchOptions options;
  size_t weight_bytes = 0;                                  ///< with the stages' inputs, which are small beside them
  size_t transformer_bytes = 0, fp8_transformer_bytes = 0;  ///< of the transformer's weights; in fp8: where asked for
  int64_t clock_size = 0;                                   ///< see Ceilings
  std::vector<StageResult> stages;
  std::vector<GenerationResult> generations;
};

/// Builds the models with random weights, then checks each stage (finite, two runs bitwise equal), times it whole, and
/// times its ops one by one; then whole generations (see bench_generations). progress hears what is being done. Throws
/// kInternal where an output is wrong, kOutOfMemory.
FluxBenchResult bench_flux(const Context& context, const FluxBenchOptions& options,
                           const std::function<void(const std::string&)>& progress);

std::string format_flux_table(const FluxBenchResult& result);

}  // namespace chipmunk::cli
