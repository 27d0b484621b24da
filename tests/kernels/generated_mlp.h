#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "core/context.h"
#include "ops/column_mlp.h"

/// Sparse MLP problems drawn at random.
namespace chipmunk::test {

struct GeneratedMlp {
  int64_t batch, tokens, channels, features, out_channels, block_rows;
  Activation activation;
  bool dense_tokens;  // of the activations, in place of dense features
  bool bias;
  DType weight_dtype;
  int64_t row_padding;  // elements between the rows of x and of the weights
  float weight_scale;   // larger ones move activations into their flat parts
  int steps;            // each with an x and lists of its own
  uint64_t seed;

  /// The problem with this number; max_elements bounds its largest tensor. Five of eight have the sizes, strides and
  /// dtypes that Hopper's kernels take.
  static GeneratedMlp draw(uint64_t number, double max_elements);
  int64_t blocks() const { return (tokens + block_rows - 1) / block_rows; }
  std::string describe() const;
};

/// bf16 values in f32 or bf16, on the host and as a device tensor whose rows lie between NaN.
struct RowTensor {
  std::vector<float> values;  // [B, rows, columns] dense
  Tensor tensor;              // [B, rows, columns]
  int64_t rows, columns;

  const float* row(int64_t row, int64_t batch = 0) const { return values.data() + (batch * rows + row) * columns; }
};
RowTensor make_rows(const Context& context, const Dims& shape, int64_t padding, DType dtype, uint64_t seed,
                    float scale);

/// What a step updates: a view into a block that holds NaN of one bit pattern around it.
struct UpdatedTensor {
  Tensor block, view;
};
/// Activations [B, T, F]. Where tokens are dense, rows are at least three tokens longer than the multiple of eight that
/// kernels may write.
UpdatedTensor make_activations(const Context& context, const GeneratedMlp& problem);
/// [B, T, C_out].
UpdatedTensor make_out(const Context& context, const GeneratedMlp& problem);

/// Lists of features, on the host and the device; some blocks have none, some all of them.
struct GeneratedFeatures {
  std::vector<std::vector<int32_t>> ids;  // [B * blocks]
  ops::FeatureSet set;

  const std::vector<int32_t>& of(int64_t batch, int64_t token, const GeneratedMlp& problem) const {
    return ids[static_cast<size_t>(batch * problem.blocks() + token / problem.block_rows)];
  }
};
GeneratedFeatures make_features(const Context& context, const GeneratedMlp& problem, uint64_t seed);

}  // namespace chipmunk::test
