#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "backend.h"
#include "chipmunk/error.h"
#include "commands.h"
#include "console.h"
#include "device_option.h"
#include "flux_bench.h"

namespace chipmunk::cli {
namespace {

constexpr int64_t kMaxRounds = 1000, kMaxSide = 16384, kMaxTextTokens = 4096, kMaxBlocks = 1000, kMaxSteps = 1000;

/// Takes what was given in place of the preset's value.
void replace(const char* name, const std::optional<int64_t>& given, int64_t min, int64_t max, int64_t multiple,
             int64_t* value) {
  if (!given) return;
  if (*given < min || *given > max || *given % multiple != 0) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}: expected {}{} to {}, found {}", name,
                            multiple > 1 ? fmt::format("a multiple of {} from ", multiple) : "", min, max, *given));
  }
  *value = *given;
}

FluxBenchOptions resolve(const BenchFluxOptions& given) {
  FluxBenchOptions options = flux_bench_preset(given.preset);
  const int64_t multiple = 2 * options.vae.spatial_factor();
  int64_t rounds = 0, steps = 0;
  replace("--width", given.width, multiple, kMaxSide, multiple, &options.width);
  replace("--height", given.height, multiple, kMaxSide, multiple, &options.height);
  replace("--text-tokens", given.text_tokens, 1, kMaxTextTokens, 1, &options.text_tokens);
  replace("--double-blocks", given.double_blocks, 0, kMaxBlocks, 1, &options.transformer.num_layers);
  replace("--single-blocks", given.single_blocks, 0, kMaxBlocks, 1, &options.transformer.num_single_layers);
  replace("--rounds", given.rounds, 1, kMaxRounds, 1, &rounds);
  replace("--steps", given.steps, 0, kMaxSteps, 1, &steps);
  options.rounds = static_cast<int>(rounds);
  options.denoising_steps = static_cast<int>(steps);
  if (given.sparsities != std::vector<std::string>{"none"}) {
    for (const std::string& name : given.sparsities) {
      options.sparsities.emplace_back(name, SparsityConfig::load_or_preset(name));
    }
  }
  options.with_text = !given.no_text;
  options.with_vae = !given.no_vae;
  options.with_fp8 = given.fp8;
  return options;
}

nlohmann::ordered_json to_json(const WorkResult& work, const Ceilings& ceilings) {
  nlohmann::ordered_json json = {{"ops", work.ops},
                                 {"ms", work.ms},
                                 {"flops", work.flops},
                                 {"bytes", work.bytes},
                                 {"fastest_ms", work.fastest_ms}};
  const double seconds = work.ms * 1e-3;
  if (work.flops > 0.0) {
    json["tflops"] = work.flops / seconds * 1e-12;
    json["fraction_of_matmul_clock"] = work.flops / seconds / ceilings.matmul_flops_per_s;
  }
  if (work.fastest_ms > 0.0) json["fraction_of_ceiling"] = work.fastest_ms / work.ms;
  return json;
}

nlohmann::ordered_json to_json(const StageResult& stage) {
  nlohmann::ordered_json json = {{"stage", stage.name},
                                 {"median_ms", stage.median_ms},
                                 {"min_ms", stage.min_ms},
                                 {"max_ms", stage.max_ms},
                                 {"rest_ms", stage.rest_ms},
                                 {"peak_memory_bytes", stage.peak_bytes},
                                 {"matmul_clock_tflops", stage.ceilings.matmul_flops_per_s * 1e-12},
                                 {"copy_gb_per_second", stage.ceilings.copy_bytes_per_s * 1e-9}};
  if (stage.busy_share) json["gpu_busy_share"] = *stage.busy_share;
  for (const KindResult& kind : stage.kinds) {
    nlohmann::ordered_json entry = {{"kind", kind.kind}};
    entry.update(to_json(kind.work, stage.ceilings));
    json["kinds"].push_back(std::move(entry));
  }
  for (const LinearResult& linear : stage.linears) {
    const LinearShape& shape = linear.shape;
    nlohmann::ordered_json entry = {
        {"m", shape.rows}, {"n", shape.out_features}, {"k", shape.in_features}, {"epilogue", epilogue_name(shape)}};
    if (shape.second_rows > 0) entry["second_m"] = shape.second_rows;
    if (shape.fp8) entry["fp8"] = true;
    entry.update(to_json(linear.work, stage.ceilings));
    if (linear.alone) {
      entry["alone_ms"] = linear.alone->ours_ms;
      entry["cublas_best_ms"] = linear.alone->cublas_ms;
      entry["fraction_of_cublas_best"] = linear.alone->cublas_ms / linear.alone->ours_ms;
    }
    json["linears"].push_back(std::move(entry));
  }
  return json;
}

nlohmann::ordered_json to_json(const GenerationResult& generation) {
  nlohmann::ordered_json json = {{"sparsity", generation.sparsity}, {"steps", generation.steps},
                                 {"median_s", generation.median_s}, {"min_s", generation.min_s},
                                 {"max_s", generation.max_s},       {"peak_memory_bytes", generation.peak_bytes}};
  for (const StepKindResult& kind : generation.kinds) {
    json["step_kinds"].push_back(
        {{"attention", kind.attention}, {"mlp", kind.mlp}, {"steps", kind.steps}, {"median_ms", kind.ms}});
  }
  return json;
}

std::string to_json(const FluxBenchResult& result, const std::string& preset) {
  const FluxBenchOptions& options = result.options;
  nlohmann::ordered_json json = {{"device", result.device},
                                 {"preset", preset},
                                 {"width", options.width},
                                 {"height", options.height},
                                 {"text_tokens", options.text_tokens},
                                 {"double_blocks", options.transformer.num_layers},
                                 {"single_blocks", options.transformer.num_single_layers},
                                 {"rounds", options.rounds},
                                 {"weight_bytes", result.weight_bytes},
                                 {"transformer_bytes", result.transformer_bytes},
                                 {"matmul_clock_size", result.clock_size}};
  if (options.with_fp8) json["fp8_transformer_bytes"] = result.fp8_transformer_bytes;
  json["stages"] = nlohmann::ordered_json::array();
  for (const StageResult& stage : result.stages) json["stages"].push_back(to_json(stage));
  json["generations"] = nlohmann::ordered_json::array();
  for (const GenerationResult& generation : result.generations) json["generations"].push_back(to_json(generation));
  return json.dump(2);
}

}  // namespace

int run_bench_flux(const BenchFluxOptions& options) {
  const FluxBenchOptions resolved = resolve(options);
  const Device device = choose_device(options.device);
  const Context context =
      device.kind == DeviceKind::kCuda ? make_cuda_context({device.index, 0}) : make_cpu_context({options.threads, 0});
  const auto progress = [&](const std::string& text) {
    if (!options.quiet) fmt::print(stderr, "{}\n", text);
  };
  const FluxBenchResult result = bench_flux(context, resolved, progress);
  print_result(options.json ? to_json(result, options.preset) : format_flux_table(result));
  return kExitOk;
}

}  // namespace chipmunk::cli
