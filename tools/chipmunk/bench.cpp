#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "backend.h"
#include "chipmunk/error.h"
#include "commands.h"
#include "console.h"
#include "device_option.h"
#include "kernel_bench.h"
#include "mlp_bench.h"

namespace chipmunk::cli {
namespace {

constexpr int kMaxRounds = 1000;

template <class Preset>
std::vector<Preset> chosen_presets(const std::vector<std::string>& names, const std::vector<Preset>& known) {
  std::vector<Preset> presets;
  for (const std::string& name : names) {
    const auto found = std::find_if(known.begin(), known.end(), [&](const Preset& p) { return p.name == name; });
    if (found == known.end()) {
      std::string all;
      for (const Preset& preset : known) all += (all.empty() ? "" : ", ") + preset.name;
      throw Error(ErrorCode::kInvalidArgument, "--preset: expected " + all + "; found \"" + name + "\"");
    }
    presets.push_back(*found);
  }
  return presets;
}

std::string to_json(const std::vector<KernelResult>& results) {
  nlohmann::ordered_json kernels = nlohmann::ordered_json::array();
  for (const KernelResult& result : results) {
    const double seconds = result.median_ms * 1e-3;
    nlohmann::ordered_json json = {{"preset", result.preset},
                                   {"kernel", result.kernel},
                                   {"kept", result.kept},
                                   {"median_ms", result.median_ms},
                                   {"min_ms", result.min_ms},
                                   {"max_ms", result.max_ms},
                                   {"relative_error", result.relative_error}};
    if (result.useful_flops > 0.0) json["useful_tflops"] = result.useful_flops / seconds * 1e-12;
    if (result.bytes > 0.0) json["gb_per_second"] = result.bytes / seconds * 1e-9;
    if (result.clock_tflops > 0.0) json["clock_tflops"] = result.clock_tflops;
    if (result.times_dense) json["times_dense"] = *result.times_dense;
    kernels.push_back(std::move(json));
  }
  return nlohmann::ordered_json{{"kernels", kernels}}.dump(2);
}

std::string to_json(const std::vector<MlpResult>& results) {
  nlohmann::ordered_json kernels = nlohmann::ordered_json::array();
  for (const MlpResult& result : results) {
    nlohmann::ordered_json json = {{"preset", result.preset}, {"kernel", result.kernel}, {"kept", result.kept}};
    if (result.top_keys) json["top_keys"] = *result.top_keys;
    if (result.random_keys) json["random_keys"] = *result.random_keys;
    json["median_ms"] = result.median_ms;
    json["min_ms"] = result.min_ms;
    json["max_ms"] = result.max_ms;
    if (result.relative_error) json["relative_error"] = *result.relative_error;
    if (result.useful_flops > 0.0) json["useful_tflops"] = result.useful_flops / result.median_ms * 1e-9;
    if (result.clock_tflops > 0.0) json["clock_tflops"] = result.clock_tflops;
    if (result.times_dense) json["times_dense"] = *result.times_dense;
    if (result.times_cublas) json["times_cublas"] = *result.times_cublas;
    kernels.push_back(std::move(json));
  }
  return nlohmann::ordered_json{{"kernels", kernels}}.dump(2);
}

/// Runs one of the benchmarks and prints what it found.
template <class Preset, class Result, class Bench>
int run_bench(const BenchKernelsOptions& options, const std::vector<Preset>& known, const Bench& bench,
              std::string (*format_table)(const std::vector<Result>&)) {
  if (options.rounds < 1 || options.rounds > kMaxRounds) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("--rounds: expected 1 to {}, found {}", kMaxRounds, options.rounds));
  }
  const std::vector<Preset> presets = chosen_presets(options.presets, known);
  const Device device = choose_device(options.device);
  const Context context =
      device.kind == DeviceKind::kCuda ? make_cuda_context({device.index, 0}) : make_cpu_context({options.threads, 0});
  const auto progress = [&](const std::string& text) {
    if (!options.quiet) fmt::print(stderr, "{}\n", text);
  };
  const std::vector<Result> results = bench(context, presets, options.rounds, progress);
  print_result(options.json ? to_json(results) : format_table(results));
  return kExitOk;
}

}  // namespace

int run_bench_kernels(const BenchKernelsOptions& options) {
  return run_bench(options, kernel_presets(), bench_kernels, format_kernel_table);
}

int run_bench_mlp(const BenchKernelsOptions& options) {
  const auto bench = [&](const Context& context, const std::vector<MlpPreset>& presets, int rounds,
                         const auto& progress) { return bench_mlp(context, presets, rounds, options.fp8, progress); };
  return run_bench(options, mlp_presets(), bench, format_mlp_table);
}

}  // namespace chipmunk::cli
