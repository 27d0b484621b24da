#include "mlp_check.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>
#include <utility>

#include "bench_values.h"
#include "chipmunk/error.h"
#include "core/column_selection.h"
#include "core/fp8_rows.h"
#include "core/random_columns.h"

namespace chipmunk::cli {
namespace {

constexpr int64_t kCheckedTokens = 5;

/// The squares of an error and of what it is relative to.
struct Squares {
  double error = 0.0, exact = 0.0;

  void add(double got, double value) {
    error += (got - value) * (got - value);
    exact += value * value;
  }
  double relative() const { return std::sqrt(error / exact); }
};

std::vector<int32_t> to_ints(const Context& context, const Tensor& tensor) {
  const Tensor host = context.to_host(tensor);
  return {host.data_as<int32_t>(), host.data_as<int32_t>() + host.numel()};
}

/// The features of one block of the first sample.
std::vector<int32_t> list_of(const Context& context, const ops::FeatureSet& features, int64_t block,
                             int64_t num_features) {
  const int32_t count = to_ints(context, features.counts)[static_cast<size_t>(block)];
  std::vector<int32_t> list(static_cast<size_t>(count));
  if (count == num_features) {
    for (int32_t i = 0; i < count; ++i) list[static_cast<size_t>(i)] = i;
    return list;
  }
  const Tensor ids = context.to_host(features.indices.select(0, 0).slice(0, block, block + 1));
  std::copy_n(ids.data_as<int32_t>(), count, list.begin());
  return list;
}

}  // namespace

MlpCheck::MlpCheck(const Context& context, const MlpWeights& weights, int64_t tokens)
    : context_(context),
      weights_(weights),
      first_(to_floats(context, weights.first.weight)),
      first_bias_(to_floats(context, weights.first.bias)),
      second_(to_floats(context, weights.second_transposed)),
      second_bias_(to_floats(context, weights.second.bias)) {
  if (weights.first.scale) {
    const std::vector<float> scales = to_floats(context, weights.first.scale);
    const size_t channels = first_.size() / scales.size();
    for (size_t i = 0; i < first_.size(); ++i) first_[i] *= scales[i / channels];
  }
  for (int64_t i = 0; i < kCheckedTokens; ++i) tokens_.push_back(i * (tokens - 1) / (kCheckedTokens - 1));
}

MlpCheck::Rows MlpCheck::read(const Tensor& activations, const Tensor& out) const {
  Rows rows;
  for (int64_t token : tokens_) {
    rows.activations.push_back(to_floats(context_, activations.slice(1, token, token + 1)));
    rows.out.push_back(to_floats(context_, out.slice(1, token, token + 1)));
  }
  return rows;
}

std::vector<float> MlpCheck::row(const Tensor& x, int64_t token) const {
  std::vector<float> values = to_floats(context_, x.slice(1, token, token + 1));
  if (!weights_.first.scale) return values;
  const auto channels = static_cast<int64_t>(values.size());
  const Fp8RowScale scale = fp8_row_scale(values.data(), DType::kF32, channels);
  std::vector<uint8_t> rounded(values.size());
  quantize_fp8_row(values.data(), DType::kF32, 0, channels, scale, rounded.data());
  dequantize_fp8_row(rounded.data(), scale.scale, channels, values.data());
  return values;
}

double MlpCheck::activation(const std::vector<float>& x, int64_t feature) const {
  const float* weight = &first_[static_cast<size_t>(feature) * x.size()];
  double sum = first_bias_[static_cast<size_t>(feature)];
  for (size_t c = 0; c < x.size(); ++c) sum += static_cast<double>(x[c]) * weight[c];
  // GELU(tanh), the only one that is timed.
  return 0.5 * sum * (1.0 + std::tanh(std::sqrt(2.0 / std::numbers::pi) * (sum + 0.044715 * sum * sum * sum)));
}

double MlpCheck::dense_error(const Tensor& x, const Rows& rows) const {
  Squares activations, outputs;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::vector<float> values = row(x, tokens_[i]);
    std::vector<double> out(second_bias_.begin(), second_bias_.end());
    for (size_t f = 0; f < first_bias_.size(); ++f) {
      const double value = activation(values, static_cast<int64_t>(f));
      activations.add(rows.activations[i][f], value);
      for (size_t c = 0; c < out.size(); ++c) out[c] += value * second_[f * out.size() + c];
    }
    for (size_t c = 0; c < out.size(); ++c) outputs.add(rows.out[i][c], out[c]);
  }
  return std::max(activations.relative(), outputs.relative());
}

double MlpCheck::step_error(const Tensor& x, const ops::FeatureSet& features, const Rows& before,
                            const Rows& after) const {
  Squares activations, outputs;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::vector<float> values = row(x, tokens_[i]);
    std::vector<double> added(second_bias_.size());
    std::vector<float> untouched = before.activations[i];
    for (int32_t id : list_of(context_, features, tokens_[i] / features.block_rows, weights_.first.out_features())) {
      const auto f = static_cast<size_t>(id);
      const double value = activation(values, id), difference = value - before.activations[i][f];
      activations.add(after.activations[i][f], value);
      untouched[f] = after.activations[i][f];
      for (size_t c = 0; c < added.size(); ++c) added[c] += difference * second_[f * added.size() + c];
    }
    if (untouched != after.activations[i]) {
      throw Error(ErrorCode::kInternal, "a feature changed that was not chosen", "sparse MLP");
    }
    for (size_t c = 0; c < added.size(); ++c) {
      outputs.add(static_cast<double>(after.out[i][c]) - before.out[i][c], added[c]);
    }
  }
  return std::max(activations.relative(), outputs.relative());
}

void check_features(const Context& context, const Tensor& means, const std::vector<float>& cached_before,
                    const Tensor& cached_means, const ops::FeatureSelection& selection,
                    const ops::FeatureSet& features) {
  const int64_t blocks = means.dim(1);
  const auto num_features = static_cast<size_t>(means.dim(2));
  const std::vector<float> now = to_floats(context, means), cached_after = to_floats(context, cached_means);
  std::vector<float> drift(num_features);
  std::vector<uint8_t> random(num_features), mask(num_features);
  // The ends and the middle: the host takes its time.
  for (int64_t block : {int64_t{0}, blocks / 2, blocks - 1}) {
    const size_t first = static_cast<size_t>(block) * num_features;
    for (size_t f = 0; f < num_features; ++f) drift[f] = std::abs(now[first + f] - cached_before[first + f]);
    RandomRow name = selection.random;
    name.group = block;
    draw_random(name, selection.random_threshold, random);
    select_features(drift, random, selection.top_k, selection.multiple_of, mask);
    std::vector<int32_t> expected;
    bool renewed = true;
    for (size_t f = 0; f < num_features; ++f) {
      if (mask[f] != 0) expected.push_back(static_cast<int32_t>(f));
      renewed = renewed && cached_after[first + f] == (mask[f] != 0 ? now : cached_before)[first + f];
    }
    if (!renewed || list_of(context, features, block, means.dim(2)) != expected) {
      throw Error(ErrorCode::kInternal, "wrong features", "selection of features");
    }
  }
}

int64_t count_pairs(const Context& context, const ops::FeatureSet& features, int64_t tokens) {
  int64_t pairs = 0, block = 0;
  for (int32_t count : to_ints(context, features.counts)) {
    pairs += count * std::min(features.block_rows, tokens - block++ * features.block_rows);
  }
  return pairs;
}

}  // namespace chipmunk::cli
