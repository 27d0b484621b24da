#include "flux_generation_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <map>
#include <utility>

#include "chipmunk/error.h"
#include "pipeline/flow_match.h"
#include "pipeline/flux_denoiser.h"
#include "stopwatch.h"

namespace chipmunk::cli {
namespace {

/// FLUX.1-dev's.
constexpr FlowMatchConfig kScheduler = {.shift = 3.0, .use_dynamic_shifting = true};
constexpr float kGuidance = 3.5f;

class StepTimes : public ProgressSink {
 public:
  void on_step(const StepReport& report) override { ms.push_back(report.elapsed_ms); }
  std::vector<double> ms;
};

/// A model with what its sparse MLPs read: made once something needs it, so that it counts in no dense run's peak
/// before.
class Model {
 public:
  explicit Model(const NamedWorkload& workload) : workload_(*workload.second) {}

  const FluxWorkload& workload() const { return workload_; }
  const TransposedMlpWeights& transposed(const Context& context, const SparsityConfig& sparsity) {
    workload_.model.add_transposed_mlp_weights(context, sparsity.mlp, &transposed_);
    return transposed_;
  }

 private:
  const FluxWorkload& workload_;
  TransposedMlpWeights transposed_;
};

/// One way to denoise, with all of its runs.
class Generation {
 public:
  Generation(const Context& context, const FluxBenchOptions& options, Model* model, std::string name,
             SparsityConfig sparsity)
      : context_(context),
        model_(*model),
        workload_(model->workload()),
        name_(std::move(name)),
        sparsity_(std::move(sparsity)),
        seed_(options.seed),
        schedule_(make_schedule(options)) {}

  void run(bool timed) {
    DeviceRuntime& runtime = context_.runtime();
    const TransposedMlpWeights& transposed = model_.transposed(context_, sparsity_);
    runtime.synchronize();
    runtime.reset_peak();
    DenoiseInputs inputs;
    inputs.latents = packed_noise(context_, workload_.geometry, 1, seed_);
    inputs.geometry = workload_.geometry;
    inputs.prompt = workload_.prompt;
    inputs.guidance_scale = kGuidance;
    inputs.sparsity = sparsity_;
    inputs.seed = seed_;
    StepTimes times;
    const auto begin = std::chrono::steady_clock::now();
    denoise_flux(context_, {workload_.model, &transposed}, inputs, schedule_, times, {});
    runtime.synchronize();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    check(context_.to_host(inputs.latents));
    if (!timed) {
      peak_bytes_ = runtime.memory().peak_bytes;
      return;
    }
    seconds_.push_back(seconds);
    for (size_t i = 0; i < times.ms.size(); ++i) {
      const Step& step = schedule_.steps()[i];
      step_ms_[{step.attention, step.mlp}].push_back(times.ms[i]);
    }
  }

  GenerationResult result() const {
    GenerationResult result;
    result.sparsity = name_;
    result.steps = static_cast<int>(schedule_.steps().size());
    result.median_s = median(seconds_);
    result.min_s = *std::min_element(seconds_.begin(), seconds_.end());
    result.max_s = *std::max_element(seconds_.begin(), seconds_.end());
    result.peak_bytes = peak_bytes_;
    for (const auto& [kind, ms] : step_ms_) {
      result.kinds.push_back(
          {to_string(kind.first), to_string(kind.second), static_cast<int>(ms.size() / seconds_.size()), median(ms)});
    }
    return result;
  }

 private:
  DenoisingSchedule make_schedule(const FluxBenchOptions& options) const {
    const std::vector<float> sigmas =
        flow_match_sigmas(kScheduler, options.denoising_steps, workload_.geometry.tokens());
    return sparsity_ == SparsityConfig::dense()
               ? DenoisingSchedule::dense(sigmas)
               : DenoisingSchedule::sparse(sigmas, sparsity_, workload_.model.num_layers());
  }

  void check(const Tensor& latents) {
    const auto* values = latents.data_as<float>();
    const std::string where = "denoising, " + name_;
    if (!std::all_of(values, values + latents.numel(), [](float value) { return std::isfinite(value); })) {
      throw Error(ErrorCode::kInternal, "expected finite latents, found NaN or infinity", where);
    }
    if (latents_.empty()) {
      latents_ = latents;
    } else if (std::memcmp(latents_.data(), latents.data(), latents.bytes()) != 0) {
      throw Error(ErrorCode::kInternal, "expected two runs to give the same bits", where);
    }
  }

  const Context& context_;
  Model& model_;
  const FluxWorkload& workload_;
  std::string name_;
  SparsityConfig sparsity_;
  uint64_t seed_;
  DenoisingSchedule schedule_;
  Tensor latents_;  // of the first run, in host memory
  size_t peak_bytes_ = 0;
  std::vector<double> seconds_;
  std::map<std::pair<AttentionStep, MlpStep>, std::vector<double>> step_ms_;
};

}  // namespace

std::vector<GenerationResult> bench_generations(const Context& context, const FluxBenchOptions& options,
                                                const std::vector<NamedWorkload>& workloads,
                                                const std::function<void(const std::string&)>& progress) {
  std::vector<Model> models;
  for (const NamedWorkload& workload : workloads) models.emplace_back(workload);
  std::vector<Generation> generations;
  for (size_t i = 0; i < models.size(); ++i) {
    const std::string& suffix = workloads[i].first;
    generations.emplace_back(context, options, &models[i], "dense" + suffix, SparsityConfig::dense());
    for (const auto& [name, sparsity] : options.sparsities) {
      generations.emplace_back(context, options, &models[i], name + suffix, sparsity);
    }
  }
  progress(fmt::format("denoising: {} steps in {} ways, untimed", options.denoising_steps, generations.size()));
  for (Generation& generation : generations) generation.run(false);
  for (int round = 0; round < options.rounds; ++round) {
    progress(fmt::format("denoising: round {} of {}", round + 1, options.rounds));
    for (Generation& generation : generations) generation.run(true);
  }
  std::vector<GenerationResult> results;
  for (const Generation& generation : generations) results.push_back(generation.result());
  return results;
}

}  // namespace chipmunk::cli
