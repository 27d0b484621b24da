#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "chipmunk/pipeline.h"

/// The commands of the program. Each run_*() writes its result to stdout, throws chipmunk::Error (bad use is
/// kInvalidArgument) and returns the exit code otherwise.
namespace chipmunk::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitError = 1;
inline constexpr int kExitBadUse = 2;
inline constexpr int kExitInterrupted = 130;  ///< as a shell reports a program that SIGINT ended

struct GenerateOptions {
  ModelFiles files;
  GenerateRequest request;  ///< what all pictures share; prompt and seed are filled in per job
  bool has_prompt = false;  ///< --prompt was given; an empty prompt is a prompt
  std::filesystem::path prompts_file;
  bool has_guidance = false;  ///< --guidance was given, so that a model without it gets a notice
  std::filesystem::path output = "output.png";
  std::filesystem::path preview_path = "preview.png";
  std::string device = "auto";
  Offload offload = Offload::kNone;
  bool fp8 = false;  ///< see LoadOptions
  int threads = 0;
  bool json = false;
  bool quiet = false;

  GenerateOptions() { request.seed = -1; }  ///< -1: a random seed for every prompt
};

struct InspectOptions {
  std::filesystem::path path;
  bool device = false;  ///< the machine's devices in place of a path
  bool tensors = false;
  bool json = false;
};

struct ScheduleOptions {
  std::filesystem::path model;  ///< empty: FLUX.1-dev's settings
  int width = 0, height = 0;    ///< 0: the model's native size
  int steps = 28;
  std::string sparsity;  ///< preset or file; empty: dense
  bool json = false;
};

/// Judges the demo model on its suite of prompts.
struct EvaluateOptions {
  std::string suite = "scenes";
  std::filesystem::path model;     ///< empty: the one that comes with Chipmunk; holds suite.json
  std::filesystem::path pictures;  ///< judge this folder and generate nothing
  std::filesystem::path output = "evaluation";
  GenerateRequest request;    ///< picture i uses seed + i
  int limit = 0;              ///< 0: the whole suite
  bool empty_prompt = false;  ///< the chance level
  std::string device = "auto";
  Offload offload = Offload::kNone;
  bool fp8 = false;  ///< see LoadOptions
  int threads = 0;
  bool json = false;
  bool quiet = false;
};

/// Makes the same pictures dense and sparse, and says how they differ.
struct CompareOptions {
  std::filesystem::path model;  ///< empty: the one that comes with Chipmunk
  GenerateRequest request;      ///< picture i uses seed + i; sparsity and record are filled in
  bool has_prompt = false;      ///< --prompt was given
  std::filesystem::path prompts_file;
  std::string suite;                  ///< "scenes": the prompts of the model's suite.json; empty: those above
  std::vector<std::string> sparsity;  ///< presets or files, one a variant
  int skip = 0;                       ///< prompts before the first; pictures keep their numbers and seeds
  int limit = 0;                      ///< 0: all prompts
  bool record = true;                 ///< what steps and layers did, too
  bool pictures = true;               ///< write them; without, only numbers are kept
  std::filesystem::path output = "comparison";
  std::string device = "auto";
  Offload offload = Offload::kNone;
  bool fp8 = false;  ///< all variants, and one more that is not sparse, in fp8; see LoadOptions
  int threads = 0;
  bool json = false;
  bool quiet = false;
};

/// Times kernels: of attention and the selection between them, or the ways to compute an MLP.
struct BenchKernelsOptions {
  std::vector<std::string> presets = {"tiny"};
  int rounds = 10;
  bool fp8 = false;  ///< of MLPs: also with the first layer of sparse steps in f8_e4m3
  std::string device = "auto";
  int threads = 0;
  bool json = false;
  bool quiet = false;
};

/// Times the stages of a generation with random weights. What is not given is the preset's.
struct BenchFluxOptions {
  std::string preset = "flux-dev";
  std::optional<int64_t> width, height, text_tokens, double_blocks, single_blocks;
  int rounds = 5;
  int steps = 50;
  std::vector<std::string> sparsities = {"flux", "flux-caching"};
  bool no_text = false, no_vae = false;
  bool fp8 = false;  ///< also steps and generations with the blocks' linears in f8_e4m3
  std::string device = "auto";
  int threads = 0;
  bool json = false;
  bool quiet = false;
};

int run_generate(const GenerateOptions& options);
int run_inspect(const InspectOptions& options);
int run_evaluate(const EvaluateOptions& options);
int run_compare(const CompareOptions& options);
int run_bench_kernels(const BenchKernelsOptions& options);
int run_bench_mlp(const BenchKernelsOptions& options);
int run_bench_flux(const BenchFluxOptions& options);
int run_schedule(const ScheduleOptions& options);
int run_version();

}  // namespace chipmunk::cli
