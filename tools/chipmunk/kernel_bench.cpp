#include "kernel_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "bench_values.h"
#include "chipmunk/error.h"
#include "core/column_selection.h"
#include "ops/attention.h"
#include "ops/column_attention.h"
#include "ops/elementwise.h"
#include "stopwatch.h"

namespace chipmunk::cli {
namespace {

constexpr int64_t kGroup = 192;
constexpr double kMaxAttentionError = 5e-3, kMaxSumError = 2e-3;
constexpr int kCheckedRows = 6;

/// Relative error of a few rows of a result, and of column sums, against float64.
class Check {
 public:
  Check(const Context& context, const KernelPreset& preset, const Tensor& q, const Tensor& k, const Tensor& v)
      : context_(context),
        preset_(preset),
        head_(preset.heads - 1),
        scale_(1.0 / std::sqrt(static_cast<double>(preset.head_dim))) {
    q_ = head_of(q);
    k_ = head_of(k);
    v_ = head_of(v);
    for (int i = 0; i < kCheckedRows; ++i) rows_.push_back(i * (preset.tokens - 1) / (kCheckedRows - 1));
  }

  /// Attention over the keys that columns keeps; all of them without.
  double attention_error(const Tensor& out, const ops::ColumnSet* columns) const {
    const std::vector<float> got = head_of(out);
    double error = 0.0, norm = 0.0;
    for (int64_t row : rows_) {
      const std::vector<int32_t> keys = keys_of(row, columns);
      std::vector<double> scores;
      double largest = -std::numeric_limits<double>::infinity();
      for (int32_t key : keys) {
        scores.push_back(score(row, key));
        largest = std::max(largest, scores.back());
      }
      std::vector<double> exact(static_cast<size_t>(preset_.head_dim));
      double sum = 0.0;
      for (size_t j = 0; j < keys.size(); ++j) {
        const double p = std::exp(scores[j] - largest);
        sum += p;
        for (int64_t d = 0; d < preset_.head_dim; ++d) {
          exact[static_cast<size_t>(d)] += p * v_[static_cast<size_t>(keys[j] * preset_.head_dim + d)];
        }
      }
      for (int64_t d = 0; d < preset_.head_dim; ++d) {
        const double value = exact[static_cast<size_t>(d)] / sum;
        const double difference = got[static_cast<size_t>(row * preset_.head_dim + d)] - value;
        error += difference * difference;
        norm += value * value;
      }
    }
    return std::sqrt(error / norm);
  }

  double sums_error(const Tensor& sums, const Tensor& lse) const {
    const int64_t group = rows_[1] / kGroup;
    const std::vector<float> got = to_floats(context_, sums.select(0, 0).select(0, head_).select(0, group));
    const std::vector<float> all_lse = to_floats(context_, lse.select(0, 0).select(0, head_));
    double error = 0.0, norm = 0.0;
    for (int64_t key = 0; key < preset_.tokens; key += std::max<int64_t>(preset_.tokens / 500, 1)) {
      double exact = 0.0;
      for (int64_t row = group * kGroup; row < std::min((group + 1) * kGroup, preset_.tokens); ++row) {
        exact += std::exp(score(row, key) - all_lse[static_cast<size_t>(row)]);
      }
      error += std::pow(got[static_cast<size_t>(key)] - exact, 2);
      norm += exact * exact;
    }
    return std::sqrt(error / norm);
  }

  /// Every list of a few groups holds the columns with the largest sums, in order.
  bool selection_is_exact(const Tensor& sums, const ops::ColumnSet& columns, int64_t top_k) const {
    for (int64_t row : rows_) {
      const int64_t group = row / kGroup;
      const std::vector<float> values = to_floats(context_, sums.select(0, 0).select(0, head_).select(0, group));
      std::vector<int32_t> order(values.size());
      for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
      std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        return values[static_cast<size_t>(a)] > values[static_cast<size_t>(b)];
      });
      order.resize(static_cast<size_t>(top_k));
      std::sort(order.begin(), order.end());
      if (keys_of(row, &columns) != order) return false;
    }
    return true;
  }

 private:
  std::vector<float> head_of(const Tensor& heads) const {
    return to_floats(context_, heads.select(0, 0).select(1, head_));
  }
  double score(int64_t row, int64_t key) const {
    double dot = 0.0;
    const float *q = &q_[static_cast<size_t>(row * preset_.head_dim)],
                *k = &k_[static_cast<size_t>(key * preset_.head_dim)];
    for (int64_t d = 0; d < preset_.head_dim; ++d) dot += static_cast<double>(q[d]) * k[d];
    return dot * scale_;
  }
  std::vector<int32_t> keys_of(int64_t row, const ops::ColumnSet* columns) const {
    std::vector<int32_t> keys;
    if (columns == nullptr) {
      for (int64_t key = 0; key < preset_.tokens; ++key) keys.push_back(static_cast<int32_t>(key));
      return keys;
    }
    const int64_t group = row / kGroup;
    const auto list = [&](const Tensor& lists) {
      // A copy: a device's tensors are fetched dense.
      const Tensor one = lists.select(0, 0).select(0, head_).select(0, group);
      const Tensor dense = context_.empty(one.shape(), DType::kI32);
      ops::copy_into(context_, one, dense);
      return context_.to_host(dense);
    };
    const Tensor count = list(columns->counts.unsqueeze(3)), ids = list(columns->indices);
    for (int32_t i = 0; i < count.data_as<int32_t>()[0]; ++i) keys.push_back(ids.data_as<int32_t>()[i]);
    return keys;
  }

  const Context& context_;
  const KernelPreset& preset_;
  int64_t head_;
  double scale_;
  std::vector<float> q_, k_, v_;
  std::vector<int64_t> rows_;
};

/// Everything that is timed at one size.
class PresetBench {
 public:
  PresetBench(const Context& context, const KernelPreset& preset, int rounds)
      : context_(context), preset_(preset), watch_(context, rounds) {
    const Dims shape = {1, preset.tokens, preset.heads, preset.head_dim};
    q_ = normal_tensor(context, shape, context.activation_dtype(), 1);
    k_ = normal_tensor(context, shape, context.activation_dtype(), 2);
    v_ = normal_tensor(context, shape, context.activation_dtype(), 3);
    out_ = context.empty(shape);
    lse_ = context.empty({1, preset.heads, preset.tokens}, DType::kF32);
    rest_ = context.empty({1, preset.heads, preset.tokens}, DType::kF32);
    const int64_t groups = (preset.tokens + kGroup - 1) / kGroup;
    sums_ = context.empty({1, preset.heads, groups, preset.tokens}, DType::kF32);
  }

  std::vector<KernelResult> run(bool with_clock) {
    const Check check(context_, preset_, q_, k_, v_);
    dense(check);
    for (double kept : preset_.kept) columns(check, kept);
    if (with_clock) watch_.add_clock();
    watch_.run();
    for (KernelResult& result : results_) {
      const std::vector<double>& ms = watch_.of(timed_name(result));
      result.median_ms = watch_.median(timed_name(result));
      result.min_ms = ms.front();
      result.max_ms = ms.back();
      result.clock_tflops = watch_.clock_tflops();
      if (result.kernel.starts_with("columns")) result.times_dense = watch_.median("dense 1") / result.median_ms;
    }
    return results_;
  }

 private:
  static std::string timed_name(const KernelResult& result) { return fmt::format("{} {}", result.kernel, result.kept); }
  double dense_flops() const {
    return 4.0 * static_cast<double>(preset_.heads * preset_.head_dim) * static_cast<double>(preset_.tokens) *
           static_cast<double>(preset_.tokens);
  }
  void add(const std::string& kernel, double kept, double flops, double bytes, double error,
           std::function<void()> body) {
    KernelResult result;
    result.preset = preset_.name;
    result.kernel = kernel;
    result.kept = kept;
    result.useful_flops = flops;
    result.bytes = bytes;
    result.relative_error = error;
    watch_.add(timed_name(result), std::move(body));
    results_.push_back(std::move(result));
  }

  void dense(const Check& check) {
    ops::AttentionOptions options;
    options.lse = lse_;
    const auto attend = [=, this] { ops::attention_into(context_, q_, k_, v_, out_, options); };
    attend();
    add("dense", 1.0, dense_flops(), 0.0, checked("dense", check.attention_error(out_, nullptr), kMaxAttentionError),
        attend);
    ops::AttentionOptions with_sums = options;
    with_sums.column_lse = lse_;
    with_sums.column_sums = sums_;
    with_sums.group_size = kGroup;
    const auto attend_with_sums = [=, this] { ops::attention_into(context_, q_, k_, v_, out_, with_sums); };
    attend_with_sums();
    checked("column sums", check.sums_error(sums_, lse_), kMaxSumError);
    add("dense + column sums", 1.0, dense_flops(), 0.0,
        checked("dense + column sums", check.attention_error(out_, nullptr), kMaxAttentionError), attend_with_sums);
  }

  void columns(const Check& check, double kept) {
    const int64_t groups = sums_.dim(2);
    const int64_t top_k = top_k_count(kept, preset_.tokens);
    const ops::ColumnSet set{context_.empty({1, preset_.heads, groups, top_k}, DType::kI32),
                             context_.empty({1, preset_.heads, groups}, DType::kI32), kGroup};
    ops::ColumnSelection selection;
    selection.top_k = top_k;
    const auto select = [=, this] { ops::select_columns(context_, sums_, selection, set); };
    select();
    if (!check.selection_is_exact(sums_, set, top_k)) throw Error(ErrorCode::kInternal, "wrong columns", "selection");
    const double rows = static_cast<double>(preset_.heads * groups);
    add("selection", kept, 0.0, rows * 4.0 * static_cast<double>(preset_.tokens + top_k), 0.0, select);

    const double flops = dense_flops() * static_cast<double>(top_k) / static_cast<double>(preset_.tokens);
    const auto attend = [=, this] { ops::column_attention_into(context_, q_, k_, v_, set, out_); };
    attend();
    add("columns", kept, flops, 0.0, checked("columns", check.attention_error(out_, &set), kMaxAttentionError), attend);

    // Split, then merge with the same queries: dense attention again.
    ops::AttentionOptions dense_options;
    dense_options.lse = lse_;
    const Tensor whole = context_.empty(out_.shape());
    ops::attention_into(context_, q_, k_, v_, whole, dense_options);
    ops::ColumnAttentionOptions options;
    options.epilogue = ColumnEpilogue::kSplit;
    options.residual = whole;
    options.lse_all = lse_;
    options.lse_rest = rest_;
    ops::column_attention_into(context_, q_, k_, v_, set, whole, options);
    options.epilogue = ColumnEpilogue::kMerge;
    const auto merge = [=, this] { ops::column_attention_into(context_, q_, k_, v_, set, out_, options); };
    merge();
    add("columns, merged", kept, flops, 0.0,
        checked("columns, merged", check.attention_error(out_, nullptr), kMaxAttentionError), merge);
  }

  const Context& context_;
  const KernelPreset& preset_;
  Stopwatch watch_;
  Tensor q_, k_, v_, out_, lse_, rest_, sums_;
  std::vector<KernelResult> results_;
};

}  // namespace

const std::vector<KernelPreset>& kernel_presets() {
  static const std::vector<KernelPreset> presets = {
      {"hunyuan", 24, 119056, 128, {0.07, 0.165}},
      {"mid", 24, 32768, 128, {0.07}},
      {"flux", 24, 4352, 128, {0.165}},
      {"wan", 40, 75600, 128, {0.10}},
      {"tiny", 2, 500, 64, {0.2}},
  };
  return presets;
}

std::vector<KernelResult> bench_kernels(const Context& context, const std::vector<KernelPreset>& presets, int rounds,
                                        const std::function<void(const std::string&)>& progress) {
  std::vector<KernelResult> results;
  for (const KernelPreset& preset : presets) {
    progress(fmt::format("{}: {} heads, {} tokens", preset.name, preset.heads, preset.tokens));
    // The clock of the run is a GPU's matter.
    const bool with_clock = context.device().kind == DeviceKind::kCuda;
    PresetBench bench(context, preset, rounds);
    for (KernelResult& result : bench.run(with_clock)) results.push_back(std::move(result));
  }
  return results;
}

std::string format_kernel_table(const std::vector<KernelResult>& results) {
  std::string text = fmt::format("{:<8} {:<20} {:>6} {:>9} {:>9} {:>9} {:>8} {:>7} {:>8} {:>9}\n", "preset", "kernel",
                                 "kept", "ms", "min", "max", "TFLOP/s", "GB/s", "x dense", "clock");
  for (const KernelResult& result : results) {
    const auto rate = [&](double amount, double unit) {
      return amount > 0.0 ? fmt::format("{:.0f}", amount / result.median_ms * unit) : std::string("-");
    };
    text += fmt::format("{:<8} {:<20} {:>5.1f}% {:>9.4f} {:>9.4f} {:>9.4f} {:>8} {:>7} {:>8} {:>9}\n", result.preset,
                        result.kernel, 100.0 * result.kept, result.median_ms, result.min_ms, result.max_ms,
                        rate(result.useful_flops, 1e-9), rate(result.bytes, 1e-6),
                        result.times_dense ? fmt::format("{:.2f}", *result.times_dense) : std::string("-"),
                        result.clock_tflops > 0.0 ? fmt::format("{:.0f}", result.clock_tflops) : std::string("-"));
  }
  return text;
}

}  // namespace chipmunk::cli
