#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "backend.h"
#include "chipmunk/error.h"
#include "commands.h"
#include "console.h"
#include "device_option.h"
#include "kernel_bench.h"

namespace chipmunk::cli {
namespace {

constexpr int kMaxRounds = 1000;

std::vector<KernelPreset> chosen_presets(const std::vector<std::string>& names) {
  std::vector<KernelPreset> presets;
  for (const std::string& name : names) {
    const auto& known = kernel_presets();
    const auto found = std::find_if(known.begin(), known.end(), [&](const KernelPreset& p) { return p.name == name; });
    if (found == known.end()) {
      std::string all;
      for (const KernelPreset& preset : known) all += (all.empty() ? "" : ", ") + preset.name;
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

}  // namespace

int run_bench_kernels(const BenchKernelsOptions& options) {
  if (options.rounds < 1 || options.rounds > kMaxRounds) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("--rounds: expected 1 to {}, found {}", kMaxRounds, options.rounds));
  }
  const std::vector<KernelPreset> presets = chosen_presets(options.presets);
  const Device device = choose_device(options.device);
  const Context context =
      device.kind == DeviceKind::kCuda ? make_cuda_context({device.index, 0}) : make_cpu_context({options.threads, 0});
  const auto progress = [&](const std::string& text) {
    if (!options.quiet) fmt::print(stderr, "{}\n", text);
  };
  const std::vector<KernelResult> results = bench_kernels(context, presets, options.rounds, progress);
  print_result(options.json ? to_json(results) : format_kernel_table(results));
  return kExitOk;
}

}  // namespace chipmunk::cli
