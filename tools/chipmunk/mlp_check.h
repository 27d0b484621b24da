#pragma once

#include <cstdint>
#include <vector>

#include "core/context.h"
#include "ops/column_mlp.h"
#include "sparse/mlp_state.h"

namespace chipmunk::cli {

/// Holds a few tokens of an MLP's activations and output against float64. One sample. Where the first layer is f8_e4m3
/// with scales, float64 computes with what its operands are rounded to.
class MlpCheck {
 public:
  /// Both live as long as this.
  MlpCheck(const Context& context, const MlpWeights& weights, int64_t tokens);

  /// What the checked tokens had at some time.
  struct Rows {
    std::vector<std::vector<float>> activations, out;
  };
  Rows read(const Tensor& activations, const Tensor& out) const;

  /// Relative error of activations or output, whichever is larger, where all of them were computed from x.
  double dense_error(const Tensor& x, const Rows& rows) const;
  /// The same of the renewed activations and of what was added to the output. Throws kInternal where another
  /// activation changed.
  double step_error(const Tensor& x, const ops::FeatureSet& features, const Rows& before, const Rows& after) const;

 private:
  /// A token of x as the first layer multiplies it.
  std::vector<float> row(const Tensor& x, int64_t token) const;
  double activation(const std::vector<float>& x, int64_t feature) const;

  const Context& context_;
  const MlpWeights& weights_;
  std::vector<int64_t> tokens_;
  std::vector<float> first_, first_bias_, second_, second_bias_;  // second_: [F, C_out]
};

/// Throws kInternal unless the features, and what became of the cached means, are those that the host chooses.
/// cached_before: [blocks, F].
void check_features(const Context& context, const Tensor& means, const std::vector<float>& cached_before,
                    const Tensor& cached_means, const ops::FeatureSelection& selection,
                    const ops::FeatureSet& features);

/// Tokens times features that a step computes.
int64_t count_pairs(const Context& context, const ops::FeatureSet& features, int64_t tokens);

}  // namespace chipmunk::cli
