#include "ops/column_mlp.h"

#include <iterator>
#include <string>

#include "backend.h"
#include "chipmunk/error.h"
#include "ops/check.h"
#include "ops/linear_params.h"

namespace chipmunk::ops {
namespace {

int64_t block_count(const char* what, int64_t rows, int64_t block_rows) {
  if (block_rows < 1) fail_argument(what, "at least 1", block_rows);
  return (rows + block_rows - 1) / block_rows;
}

void check_rows(const Context& context, const Tensor& x, const char* what) {
  check_present(context, x, what);
  if (x.rank() != 3) fail_shape(what, "rank 3 [B, T, C]", x);
  check_activation(context, x, what);
  check_inner_dense(x, what);
}

/// Checks the parts of a feature set and gives its capacity.
int64_t check_features(const Context& context, const FeatureSet& features, int64_t batch, int64_t blocks) {
  check_i32(context, features.counts, {batch, blocks}, "features: counts");
  check_present(context, features.indices, "features: indices");
  if (features.indices.rank() != 3) fail_shape("features: indices", "rank 3 [B, blocks, capacity]", features.indices);
  check_i32(context, features.indices, {batch, blocks, features.indices.dim(2)}, "features: indices");
  return features.indices.dim(2);
}

/// `means` gets memory for them.
BlockMeanParams block_mean_params(const Context& context, const Tensor& x, int64_t block_rows, Tensor* means) {
  check_rows(context, x, "block_mean: x");
  const int64_t blocks = block_count("block_mean: block_rows", x.dim(1), block_rows);
  *means = context.empty({x.dim(0), blocks, x.dim(2)});
  BlockMeanParams params{};
  params.x = in(x);
  params.out = out(*means);
  params.batch = x.dim(0);
  params.rows = x.dim(1);
  params.channels = x.dim(2);
  params.block_rows = block_rows;
  params.x_batch_stride = x.stride(0);
  params.x_row_stride = x.stride(1);
  return params;
}

ColumnMlpParams column_mlp_params(const Context& context, const Tensor& x, const Linear& first, Activation activation,
                                  const Tensor& second_transposed, const FeatureSet& features,
                                  const Tensor& activations, const Tensor& result) {
  check_rows(context, x, "column_mlp: x");
  check_present(context, first.weight, "column_mlp: first layer's weight");
  check_present(context, second_transposed, "column_mlp: second layer's weight");
  const int64_t batch = x.dim(0), rows = x.dim(1), channels = x.dim(2);
  if (first.weight.rank() != 2 || first.weight.dim(1) != channels) {
    fail_shape("column_mlp: first layer's weight", "[F, " + std::to_string(channels) + "]", first.weight);
  }
  const int64_t num_features = first.weight.dim(0);
  if (first.scale) {
    check_f32(context, first.scale, {num_features}, "column_mlp: first layer's scale");
    check_dtype(first.weight, DType::kF8E4M3, "column_mlp: first layer's weight with a scale");
  }
  if (second_transposed.rank() != 2 || second_transposed.dim(0) != num_features) {
    fail_shape("column_mlp: second layer's weight", "[" + std::to_string(num_features) + ", C]", second_transposed);
  }
  const int64_t out_channels = second_transposed.dim(1);
  for (const Tensor& weight : {first.weight, second_transposed}) {
    check_floating(weight, "column_mlp: weights");
    check_inner_dense(weight, "column_mlp: weights");
  }
  if (first.bias) {
    check_shape(context, first.bias, {num_features}, "column_mlp: bias");
    check_floating(first.bias, "column_mlp: bias");
    check_dense(first.bias, "column_mlp: bias");
  }
  check_shape(context, activations, {batch, rows, num_features}, "column_mlp: activations");
  check_shape(context, result, {batch, rows, out_channels}, "column_mlp: out");
  check_activation(context, activations, "column_mlp: activations");
  check_activation(context, result, "column_mlp: out");
  if (activations.stride(2) != 1 && activations.stride(1) != 1) {
    fail_shape("column_mlp: activations", "dense tokens or dense features", activations);
  }
  check_dense(result, "column_mlp: out");

  ColumnMlpParams params{};
  params.capacity =
      check_features(context, features, batch, block_count("column_mlp: block_rows", rows, features.block_rows));
  params.x = in(x);
  params.weight1 = in(first.weight);
  params.weight1_scale = static_cast<const float*>(first.scale.data());
  params.bias1 = in(first.bias);
  params.weight2 = in(second_transposed);
  params.activations = out(activations);
  params.out = out(result);
  params.indices = features.indices.data_as<int32_t>();
  params.counts = features.counts.data_as<int32_t>();
  params.batch = batch;
  params.rows = rows;
  params.channels = channels;
  params.features = num_features;
  params.out_channels = out_channels;
  params.block_rows = features.block_rows;
  params.x_batch_stride = x.stride(0);
  params.x_row_stride = x.stride(1);
  params.weight1_row_stride = first.weight.stride(0);
  params.weight2_row_stride = second_transposed.stride(0);
  params.activation_batch_stride = activations.stride(0);
  params.activation_row_stride = activations.stride(1);
  params.activation_feature_stride = activations.stride(2);
  params.activation = activation;
  return params;
}

}  // namespace

Tensor block_mean(const Context& context, const Tensor& x, int64_t block_rows) {
  Tensor result;
  const BlockMeanParams params = block_mean_params(context, x, block_rows, &result);
  context.backend().block_mean(context, params);
  return result;
}

Tensor block_mean_linear(const Context& context, const Tensor& x, int64_t block_rows, const Linear& layer) {
  check_rows(context, x, "block_mean: x");
  check_present(context, layer.weight, "block_mean_linear: weight");
  if (layer.weight.rank() != 2) fail_shape("block_mean_linear: weight", "rank 2", layer.weight);
  const int64_t blocks = block_count("block_mean: block_rows", x.dim(1), block_rows);
  Tensor result = context.empty({x.dim(0), blocks, layer.out_features()});
  block_mean_linear_into(context, {{x, layer, result}}, block_rows);
  return result;
}

void block_mean_linear_into(const Context& context, const std::vector<BlockMeanLinearCall>& calls, int64_t block_rows) {
  BlockMeanLinearParams params{};
  if (calls.empty() || calls.size() > std::size(params.parts)) {
    fail_argument("block_mean_linear: calls", "one or two", static_cast<int64_t>(calls.size()));
  }
  std::vector<Tensor> means(calls.size());
  for (size_t i = 0; i < calls.size(); ++i) {
    const auto& [x, layer, result] = calls[i];
    check_present(context, result, "block_mean_linear: out");
    check_inner_dense(result, "block_mean_linear: out");
    params.parts[i].mean = block_mean_params(context, x, block_rows, &means[i]);
    params.parts[i].linear = linear_params(context, means[i], layer, result, {});
  }
  params.count = static_cast<int>(calls.size());
  context.backend().block_mean_linear(context, params);
}

void select_features(const Context& context, const Tensor& means, const Tensor& cached_means,
                     const FeatureSelection& selection, const FeatureSet& features) {
  check_present(context, means, "select_features: means");
  if (means.rank() != 3) fail_shape("select_features: means", "rank 3 [B, blocks, F]", means);
  check_activation(context, means, "select_features: means");
  check_dense(means, "select_features: means");
  check_f32(context, cached_means, means.shape(), "select_features: cached_means");
  if (selection.multiple_of < 1) fail_argument("select_features: multiple_of", "at least 1", selection.multiple_of);
  const int64_t batch = means.dim(0), num_features = means.dim(2);
  const int64_t blocks = block_count("select_features: means_per_block", means.dim(1), selection.means_per_block);
  const Dims row_shape = {batch, blocks, num_features};
  if (selection.random_features) {
    check_u8(context, selection.random_features, row_shape, "select_features: random_features");
  }
  if (selection.drift) check_f32(context, selection.drift, row_shape, "select_features: drift");

  SelectFeaturesParams params{};
  params.capacity = check_features(context, features, batch, blocks);
  params.means = in(means);
  params.cached_means = cached_means.data_as<float>();
  params.random_features = static_cast<const uint8_t*>(selection.random_features.data());
  params.drift = static_cast<float*>(selection.drift.data());
  params.indices = features.indices.data_as<int32_t>();
  params.counts = features.counts.data_as<int32_t>();
  params.batch = batch;
  params.blocks = blocks;
  params.mean_blocks = means.dim(1);
  params.features = num_features;
  params.means_per_block = selection.means_per_block;
  params.top_k = selection.top_k;
  params.multiple_of = selection.multiple_of;
  params.random = selection.random;
  params.random_threshold = selection.random_threshold;
  context.backend().select_features(context, params);
}

Tensor empty_activations(const Context& context, int64_t batch, int64_t tokens, int64_t num_features) {
  if (!context.backend().wants_dense_tokens()) return context.empty({batch, tokens, num_features});
  // Rows of a multiple of 16 bytes.
  constexpr int64_t kTokens = 8;
  const int64_t padded = (tokens + kTokens - 1) / kTokens * kTokens;
  return context.empty({batch, num_features, padded}).permute({0, 2, 1}).slice(1, 0, tokens);
}

void column_mlp_into(const Context& context, const Tensor& x, const Linear& first, Activation activation,
                     const Tensor& second_transposed, const FeatureSet& features, const Tensor& activations,
                     const Tensor& result) {
  context.backend().column_mlp(
      context, column_mlp_params(context, x, first, activation, second_transposed, features, activations, result));
}

void column_mlp_into(const Context& context, const Tensor& x, const std::vector<ColumnMlpPart>& parts,
                     Activation activation, const FeatureSet& features, const Tensor& activations, const Tensor& result,
                     bool overlaps_last) {
  if (parts.empty() || parts.size() > 2) {
    fail_argument("column_mlp: parts", "one or two", static_cast<int64_t>(parts.size()));
  }
  if (parts.size() == 1) {
    ColumnMlpParams params = column_mlp_params(context, x, parts[0].first, activation, parts[0].second_transposed,
                                               features, activations, result);
    params.overlaps_last = overlaps_last;
    return context.backend().column_mlp(context, params);
  }
  check_rows(context, x, "column_mlp: x");
  const int64_t batch = x.dim(0), rows = x.dim(1), split = parts[0].tokens;
  if (split < 1 || parts[1].tokens < 1 || split + parts[1].tokens != rows) {
    fail_shape("column_mlp: x",
               std::to_string(split) + " and " + std::to_string(parts[1].tokens) + " tokens, each at least 1", x);
  }
  const Linear &first = parts[0].first, &other = parts[1].first;
  check_present(context, first.weight, "column_mlp: first layer's weight");
  check_shape(context, other.weight, first.weight.shape(), "column_mlp: the second part's first layer");
  check_present(context, activations, "column_mlp: activations");
  check_present(context, result, "column_mlp: out");
  const int64_t split_block = block_count("column_mlp: block_rows", split, features.block_rows);
  const int64_t blocks = split_block + block_count("column_mlp: block_rows", parts[1].tokens, features.block_rows);
  check_features(context, features, batch, blocks);
  if (activations.rank() != 3) fail_shape("column_mlp: activations", "rank 3 [B, T, F]", activations);
  if (result.rank() != 3) fail_shape("column_mlp: out", "rank 3 [B, T, C]", result);
  for (const Tensor& joint : {activations, result}) {
    if (joint.dim(0) != batch || joint.dim(1) != rows) {
      fail_shape("column_mlp: activations, out", "[" + std::to_string(batch) + ", " + std::to_string(rows) + ", ...]",
                 joint);
    }
  }
  for (int64_t b = 0; b < batch; ++b) {
    const auto part = [&](const ColumnMlpPart& p, int64_t row, int64_t end, int64_t block, int64_t end_block) {
      const auto tokens = [&](const Tensor& joint) { return joint.slice(0, b, b + 1).slice(1, row, end); };
      const auto lists = [&](const Tensor& joint) { return joint.slice(0, b, b + 1).slice(1, block, end_block); };
      return column_mlp_params(context, tokens(x), p.first, activation, p.second_transposed,
                               {lists(features.indices), lists(features.counts), features.block_rows},
                               tokens(activations), tokens(result));
    };
    ColumnMlpPairParams pair{part(parts[0], 0, split, 0, split_block),
                             part(parts[1], split, rows, split_block, blocks)};
    pair.first.activations_go_on = true;
    pair.first.overlaps_last = overlaps_last && b == 0;
    context.backend().column_mlp_pair(context, pair);
  }
}

}  // namespace chipmunk::ops
