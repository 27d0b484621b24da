#include "mlp_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "bench_values.h"
#include "core/column_selection.h"
#include "gpu_trace.h"
#include "linear_survey.h"
#include "mlp_check.h"
#include "ops/elementwise.h"
#include "ops/fp8_rows.h"
#include "random_models.h"
#include "sparse/mlp_state.h"
#include "stopwatch.h"

namespace chipmunk::cli {
namespace {

/// bf16 activations are off by 1.1e-3 on average; a step's output also by its old value's rounding.
constexpr double kMaxError = 5e-3;
constexpr float kBiasScale = 0.1f;
/// So many inputs take turns: a step whose x is the last one's has no differences to add, and a selection none to find.
constexpr int64_t kInputs = 8;
constexpr const char *kDense = "dense", *kCublas = "dense, cuBLASLt";

/// top_keys and random_keys of the measured steps: the top-k alone, and FLUX's preset.
constexpr std::pair<double, double> kShares[] = {{0.3, 0.0}, {0.3, 0.05}};

/// Everything that is timed at one size.
class PresetBench {
 public:
  PresetBench(const Context& context, const MlpPreset& preset, int rounds)
      : context_(context), preset_(preset), rounds_(rounds), random_(context, 1), watch_(context, rounds) {
    const auto& [name, tokens, channels, features, out_channels] = preset_;
    const auto matrix = [this](int64_t rows, int64_t columns) {
      return random_.normal({rows, columns}, DType::kBF16, 1.0f / std::sqrt(static_cast<float>(columns)));
    };
    weights_.first = {matrix(features, channels), random_.normal({features}, DType::kBF16, kBiasScale)};
    weights_.second = {matrix(out_channels, features), random_.normal({out_channels}, DType::kBF16, kBiasScale)};
    weights_.second_transposed = context.empty({features, out_channels}, DType::kBF16);
    ops::copy_into(context, weights_.second.weight.permute({1, 0}), weights_.second_transposed);
    // Windows of one tensor, a block apart.
    inputs_ = random_.normal({1, tokens + (kInputs - 1) * SparseMlpPlan{}.block_rows, channels},
                             context.activation_dtype(), 1.0f);
  }

  std::vector<MlpResult> run(bool on_gpu, bool fp8, const std::function<void(const std::string&)>& progress) {
    {
      const MlpCheck check(context_, weights_, preset_.tokens);
      dense(check);
      if (on_gpu) cublas();
      full_step(check);
      for (const auto& [top_keys, random_keys] : kShares) sparse_steps(check, weights_, top_keys, random_keys);
    }
    if (fp8) {
      fp8_weights_ = weights_;
      const ops::Fp8Rows rows = ops::quantize_rows(context_, activations_of(weights_.first.weight));
      fp8_weights_.first.weight = rows.values;
      fp8_weights_.first.scale = rows.scales;
      const MlpCheck check(context_, fp8_weights_, preset_.tokens);
      for (const auto& [top_keys, random_keys] : kShares) sparse_steps(check, fp8_weights_, top_keys, random_keys);
    }
    if (on_gpu) watch_.add_clock();
    watch_.run();
    for (MlpResult& result : results_) {
      const std::vector<double>& ms = watch_.of(timed_name(result));
      result.median_ms = watch_.median(timed_name(result));
      result.min_ms = ms.front();
      result.max_ms = ms.back();
    }
    compare();
    if (on_gpu) trace_matmuls(progress);
    return results_;
  }

 private:
  static std::string timed_name(const MlpResult& result) {
    return fmt::format("{} {}", result.kernel, result.random_keys.value_or(0.0));
  }
  /// Of so many pairs of a token and a feature, each in both layers.
  double flops(double pairs) const {
    return 2.0 * pairs * static_cast<double>(preset_.channels + preset_.out_channels);
  }
  double all_pairs() const { return static_cast<double>(preset_.tokens) * static_cast<double>(preset_.features); }
  Tensor next_input() {
    const int64_t first = turn_++ % kInputs * SparseMlpPlan{}.block_rows;
    return inputs_.slice(1, first, first + preset_.tokens);
  }
  /// Random choices are named by their step, which has 12 bits.
  int next_step() { return step_++ % (1 << 12); }

  void add(MlpResult result, std::function<void()> body) {
    result.preset = preset_.name;
    watch_.add(timed_name(result), std::move(body));
    results_.push_back(std::move(result));
  }
  void add_whole(const char* kernel, double error, std::function<void()> body) {
    MlpResult result;
    result.kernel = kernel;
    result.useful_flops = flops(all_pairs());
    result.relative_error = checked(kernel, error, kMaxError);
    add(std::move(result), std::move(body));
  }

  void dense(const MlpCheck& check) {
    const Tensor activations = context_.empty({1, preset_.tokens, preset_.features});
    const Tensor out = context_.empty({1, preset_.tokens, preset_.out_channels});
    const auto compute = [=, this](const Tensor& x) {
      ops::linear_into(context_, x, weights_.first, activations, {weights_.activation, {}, {}});
      ops::linear_into(context_, activations, weights_.second, out);
    };
    const Tensor x = next_input();
    compute(x);
    dense_ = [=, this] { compute(next_input()); };
    add_whole(kDense, check.dense_error(x, check.read(activations, out)), dense_);
  }

  void cublas() {
    const Tensor x = next_input(), activations = context_.empty({1, preset_.tokens, preset_.features});
    const Tensor out = context_.empty({1, preset_.tokens, preset_.out_channels});
    const auto first = fastest_linear(context_, x, weights_.first, weights_.activation, activations);
    const auto second = fastest_linear(context_, activations, weights_.second, Activation::kNone, out);
    MlpResult result;
    result.kernel = kCublas;
    result.useful_flops = flops(all_pairs());
    add(std::move(result), [=] {
      first();
      second();
    });
  }

  void full_step(const MlpCheck& check) {
    const auto state = std::make_shared<SparseMlpState>(std::make_shared<SparseMlpPlan>(), 0, 0);
    const auto compute = [=, this](const Tensor& x) { state->forward(context_, MlpStep::kFull, 0, x, weights_); };
    const Tensor x = next_input();
    compute(x);
    add_whole("full step", check.dense_error(x, check.read(state->activations(), state->output())),
              [=, this] { compute(next_input()); });
  }

  /// In the dtype of activations, whose rows can be quantised.
  Tensor activations_of(const Tensor& weight) const {
    return ops::to_dense(context_, weight, context_.activation_dtype());
  }

  /// With these weights, which stay where they are.
  void sparse_steps(const MlpCheck& check, const MlpWeights& weights, double top_keys, double random_keys) {
    const bool fp8 = !weights.first.scale.empty();
    auto plan = std::make_shared<SparseMlpPlan>();
    plan->top_keys = top_keys;
    plan->random_keys = random_keys;
    const auto state = std::make_shared<SparseMlpState>(plan, 0, 0);
    const auto compute = [=, this, &weights](MlpStep kind, const Tensor& x) {
      state->forward(context_, kind, next_step(), x, weights);
    };
    compute(MlpStep::kFull, next_input());
    const auto add_step = [&](const char* kernel, MlpStep kind) {
      const MlpCheck::Rows before = check.read(state->activations(), state->output());
      const Tensor x = next_input();
      compute(kind, x);
      const MlpCheck::Rows after = check.read(state->activations(), state->output());
      MlpResult result = sparse_result(kernel, *plan, state->features());
      result.useful_flops = flops(result.kept * all_pairs());
      result.relative_error = checked(kernel, check.step_error(x, state->features(), before, after), kMaxError);
      const auto body = [=, this] { compute(kind, next_input()); };
      if (kind == MlpStep::kSparseReuse && !fp8) sparse_.emplace_back(results_.size(), body);
      add(std::move(result), body);
    };
    add_step(fp8 ? "select + sparse, fp8" : "select + sparse", MlpStep::kSparseSelect);
    add_step(fp8 ? "sparse, fp8" : "sparse", MlpStep::kSparseReuse);
    if (!fp8) selection(*plan, *state);
  }

  /// As the step that selects does it, with means and lists of its own.
  void selection(const SparseMlpPlan& plan, const SparseMlpState& state) {
    ops::FeatureSelection chosen;
    chosen.top_k = top_feature_count(plan.top_keys, preset_.features);
    chosen.random.purpose = RandomPurpose::kMlpFeatures;
    chosen.random_threshold = random_threshold(plan.random_keys);
    const ops::FeatureSet set{context_.empty(state.features().indices.shape(), DType::kI32),
                              context_.empty(state.features().counts.shape(), DType::kI32), plan.block_rows};
    const Tensor cached = context_.empty(state.means().shape(), DType::kF32);
    ops::copy_into(context_, state.means(), cached);
    const auto means_of = [=, this, rows = plan.mean_rows](const Tensor& x) {
      return ops::block_mean_linear(context_, x, rows, weights_.first);
    };
    const std::vector<float> before = to_floats(context_, cached);
    const Tensor means = means_of(next_input());
    ops::select_features(context_, means, cached, chosen, set);
    check_features(context_, means, before, cached, chosen, set);
    MlpResult result = sparse_result("selection", plan, set);
    result.relative_error = 0.0;
    add(std::move(result), [=, this]() mutable {
      chosen.random.step = next_step();
      ops::select_features(context_, means_of(next_input()), cached, chosen, set);
    });
  }

  MlpResult sparse_result(const char* kernel, const SparseMlpPlan& plan, const ops::FeatureSet& features) const {
    MlpResult result;
    result.kernel = kernel;
    result.top_keys = plan.top_keys;
    result.random_keys = plan.random_keys;
    result.kept = static_cast<double>(count_pairs(context_, features, preset_.tokens)) / all_pairs();
    return result;
  }

  void compare() {
    const auto ms_of = [&](const char* kernel) {
      const auto found =
          std::find_if(results_.begin(), results_.end(), [&](const MlpResult& r) { return r.kernel == kernel; });
      return found != results_.end() ? std::optional(found->median_ms) : std::nullopt;
    };
    const std::optional<double> dense_ms = ms_of(kDense), cublas_ms = ms_of(kCublas);
    for (MlpResult& result : results_) {
      result.clock_tflops = watch_.clock_tflops();
      if (result.useful_flops == 0.0) continue;
      if (result.kernel != kDense) result.times_dense = *dense_ms / result.median_ms;
      if (cublas_ms && result.kernel != kCublas) result.times_cublas = *cublas_ms / result.median_ms;
    }
  }

  /// The two matmuls of sparse steps one by one, behind a dense step each, so that the clock is as in the rounds.
  void trace_matmuls(const std::function<void(const std::string&)>& progress) {
    // The last one first: others are inserted behind it.
    for (auto sparse = sparse_.rbegin(); sparse != sparse_.rend(); ++sparse) {
      const auto& [place, body] = *sparse;
      const std::vector<double> step = operation_ms(body, progress);
      const std::vector<double> rounds = operation_ms(
          [&] {
            for (int round = 0; round < rounds_; ++round) {
              dense_();
              body();
            }
          },
          progress);
      if (step.empty() || rounds.empty()) return;
      const size_t operations = rounds.size() / static_cast<size_t>(rounds_);
      // A step's kernels take turns, where it has more than two: the token blocks come in several groups then.
      if (step.size() % 2 != 0 || operations <= step.size() || rounds.size() % static_cast<size_t>(rounds_) != 0) {
        return progress(fmt::format("no times of single matmuls: found {} kernels of a step, {} of {} steps",
                                    step.size(), rounds.size(), rounds_));
      }
      for (const size_t matmul : {1, 0}) {
        std::vector<double> ms;
        for (size_t end = operations; end <= rounds.size(); end += operations) {
          ms.push_back(0.0);
          for (size_t i = end - step.size() + matmul; i < end; i += 2) ms.back() += rounds[i];
        }
        insert_matmul(place, matmul, std::move(ms));
      }
    }
  }

  /// Of each operation of a body, as the GPU records it; nothing where it cannot, which progress hears.
  std::vector<double> operation_ms(const std::function<void()>& body,
                                   const std::function<void(const std::string&)>& progress) const {
    std::string reason;
    const std::optional<GpuActivity> activity = trace_gpu(
        [&] {
          body();
          context_.runtime().synchronize();
        },
        &reason);
    if (activity) return activity->operation_ms;
    progress("no times of single matmuls: " + reason);
    return {};
  }

  /// Behind the result at `place`, of both.
  void insert_matmul(size_t place, size_t matmul, std::vector<double> ms) {
    std::sort(ms.begin(), ms.end());
    const double channels[] = {static_cast<double>(preset_.channels), static_cast<double>(preset_.out_channels)};
    MlpResult result = results_[place];
    result.kernel = matmul == 0 ? "sparse, first matmul" : "sparse, second matmul";
    result.useful_flops *= channels[matmul] / (channels[0] + channels[1]);
    result.times_dense = result.times_cublas = result.relative_error = std::nullopt;
    result.median_ms = ms[ms.size() / 2];
    result.min_ms = ms.front();
    result.max_ms = ms.back();
    results_.insert(results_.begin() + static_cast<ptrdiff_t>(place) + 1, std::move(result));
  }

  const Context& context_;
  const MlpPreset& preset_;
  int rounds_;
  RandomTensors random_;
  Stopwatch watch_;
  MlpWeights weights_, fp8_weights_;
  Tensor inputs_;
  std::function<void()> dense_;
  std::vector<std::pair<size_t, std::function<void()>>> sparse_;  // places among the results
  int64_t turn_ = 0;
  int step_ = 0;
  std::vector<MlpResult> results_;
};

}  // namespace

const std::vector<MlpPreset>& mlp_presets() {
  static const std::vector<MlpPreset> presets = {
      {"flux", 4352, 3072, 12288, 3072},
      {"flux-image", 3840, 3072, 12288, 3072},
      {"hunyuan", 118784, 3072, 12288, 3072},
      {"tiny", 300, 128, 512, 256},
  };
  return presets;
}

std::vector<MlpResult> bench_mlp(const Context& context, const std::vector<MlpPreset>& presets, int rounds, bool fp8,
                                 const std::function<void(const std::string&)>& progress) {
  std::vector<MlpResult> results;
  for (const MlpPreset& preset : presets) {
    progress(fmt::format("{}: {} tokens, {} channels, {} features, {} output channels", preset.name, preset.tokens,
                         preset.channels, preset.features, preset.out_channels));
    PresetBench bench(context, preset, rounds);
    for (MlpResult& result : bench.run(context.device().kind == DeviceKind::kCuda, fp8, progress)) {
      results.push_back(std::move(result));
    }
  }
  return results;
}

std::string format_mlp_table(const std::vector<MlpResult>& results) {
  std::string text = fmt::format("{:<10} {:<21} {:>6} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8}\n", "preset", "kernel",
                                 "kept", "ms", "min", "max", "TFLOP/s", "x dense", "x cuBLAS", "clock");
  const auto cell = [](double value, const char* format) {
    return value > 0.0 ? fmt::format(fmt::runtime(format), value) : std::string("-");
  };
  for (const MlpResult& result : results) {
    text += fmt::format("{:<10} {:<21} {:>5.1f}% {:>9.4f} {:>9.4f} {:>9.4f} {:>8} {:>8} {:>8} {:>8}\n", result.preset,
                        result.kernel, 100.0 * result.kept, result.median_ms, result.min_ms, result.max_ms,
                        cell(result.useful_flops / result.median_ms * 1e-9, "{:.0f}"),
                        cell(result.times_dense.value_or(0.0), "{:.2f}"),
                        cell(result.times_cublas.value_or(0.0), "{:.2f}"), cell(result.clock_tflops, "{:.0f}"));
  }
  return text;
}

}  // namespace chipmunk::cli
