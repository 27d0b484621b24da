#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/context.h"
#include "ops/column_mlp.h"
#include "sparse/config.h"
#include "sparse/schedule.h"

namespace chipmunk {

/// A two-layer MLP: second(activation(first(x))).
struct MlpWeights {
  Linear first;              ///< [F, C]
  Linear second;             ///< [C_out, F]
  Tensor second_transposed;  ///< [F, C_out]: rows of it are what a sparse step gathers; may be empty for full steps
  Activation activation = Activation::kGeluTanh;
};

/// Consecutive tokens of a sequence, and the MLP that they have.
struct MlpPart {
  int64_t tokens;
  MlpWeights weights;
};
/// One or two, of MLPs of the same sizes and activation, that make up a sequence; each has token blocks of its own.
using MlpParts = std::vector<MlpPart>;

/// What all sparse MLP layers of one generation have in common.
struct SparseMlpPlan {
  double top_keys = 1.0;
  double random_keys = 0.0;
  int64_t multiple_of = 1;   ///< of the number of features
  int64_t block_rows = 128;  ///< tokens that share features
  int64_t capacity = 0;      ///< features that a list has room for; 0: as many as the fractions need
  int64_t mean_rows = 128;   ///< tokens of one mean; divides block_rows
  uint64_t seed = 0;

  static SparseMlpPlan make(const SparsityConfig::Mlp& config, uint64_t seed);
};

/// One layer's MLP over the steps of one generation, in one guidance branch: it keeps activations, output and the
/// block means of the pre-activations, and renews the features that moved (docs/method.md).
class SparseMlpState {
 public:
  /// branch, layer: name the random choices.
  SparseMlpState(std::shared_ptr<const SparseMlpPlan> plan, int branch, int layer);

  /// output() becomes MLP(x), with what this step renews. x: [B, T, C] with dense rows. random_features: u8 [B, blocks,
  /// F], used by kSparseSelect besides the drawn ones; or empty. kSparseReuse chooses where nothing was chosen before.
  /// Throws kInvalidArgument for kSkip and for a sparse step before a full one.
  void forward(const Context& context, MlpStep kind, int step, const Tensor& x, const MlpParts& parts,
               const Tensor& random_features = {});
  /// The same of one part.
  void forward(const Context& context, MlpStep kind, int step, const Tensor& x, const MlpWeights& weights,
               const Tensor& random_features = {});
  /// forward() in two, between which others may queue work. First block means of x, or the choice of features; returns
  /// whether anything was queued.
  bool prepare(const Context& context, MlpStep kind, int step, const Tensor& x, const MlpParts& parts,
               const Tensor& random_features = {});
  /// Then the MLP, of what prepare() was given. overlaps_last: see ops::LinearCall; sparse kinds make use of it.
  void compute(const Context& context, MlpStep kind, const Tensor& x, const MlpParts& parts,
               bool overlaps_last = false);

  /// The features in force; empty tensors before the first sparse step.
  const ops::FeatureSet& features() const { return features_; }
  /// [B, T, F], [B, T, C_out]: to be read only, they are what the next step goes on from.
  const Tensor& activations() const { return activations_; }
  const Tensor& output() const { return output_; }
  /// f32 [B, means, F]: of each part ceil(tokens / mean_rows).
  const Tensor& means() const { return means_; }
  /// f32 [B, blocks, F], what the last choice compared; empty unless keep_drift was called.
  const Tensor& drift() const { return drift_; }
  void keep_drift() { keep_drift_ = true; }

 private:
  void full(const Context& context, const Tensor& x, const MlpParts& parts);
  void choose_features(const Context& context, int step, const Tensor& x, const MlpParts& parts,
                       const Tensor& random_features);

  std::shared_ptr<const SparseMlpPlan> plan_;
  int branch_, layer_;
  bool keep_drift_ = false;
  ops::FeatureSet features_;
  Tensor activations_, output_, means_, drift_;
};

}  // namespace chipmunk
