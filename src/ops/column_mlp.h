#pragma once

#include <cstdint>
#include <vector>

#include "core/context.h"
#include "ops/linear.h"
#include "params.h"

namespace chipmunk::ops {

/// Which hidden features each block of tokens computes.
struct FeatureSet {
  Tensor indices;          ///< i32 [B, blocks, capacity]: ascending features; entries past the count are ignored
  Tensor counts;           ///< i32 [B, blocks]: in [0, capacity], or F: every feature, with no list
  int64_t block_rows = 0;  ///< tokens per block; blocks = ceil(T / block_rows)
};

/// Means over blocks of `block_rows` tokens of x, [B, T, C]: [B, ceil(T / block_rows), C]. The last block may be
/// shorter.
Tensor block_mean(const Context& context, const Tensor& x, int64_t block_rows);

/// linear(block_mean(x, block_rows), layer): [B, ceil(T / block_rows), out_features].
Tensor block_mean_linear(const Context& context, const Tensor& x, int64_t block_rows, const Linear& layer);
struct BlockMeanLinearCall {
  Tensor x;
  Linear layer;
  Tensor out;  ///< with dense rows
};
/// The same for one or two calls, of which neither writes what the other reads: a GPU may have them overlap.
void block_mean_linear_into(const Context& context, const std::vector<BlockMeanLinearCall>& calls, int64_t block_rows);

struct FeatureSelection {
  int64_t top_k = 0;  ///< see top_feature_count in core/column_selection.h
  int64_t multiple_of = 1;
  int64_t means_per_block = 1;    ///< block means that one block of tokens has
  Tensor random_features;         ///< u8 [B, blocks, F]; or empty
  RandomRow random;               ///< batch and group are filled in
  uint64_t random_threshold = 0;  ///< of drawn features: random_threshold(probability)
  Tensor drift;                   ///< f32 [B, blocks, F], receives what is compared; or empty
};

/// Chooses each block's features: those whose means, [B, R, F], are furthest from the cached ones, f32 of the same
/// shape, which take the new values of the chosen features. features.indices and counts are overwritten; a block that
/// would keep more than their capacity keeps every feature. Throws kShapeMismatch, kInvalidArgument.
void select_features(const Context& context, const Tensor& means, const Tensor& cached_means,
                     const FeatureSelection& selection, const FeatureSet& features);

/// Activations for column_mlp_into as the device likes them: [B, T, F], of which tokens or features lie side by side.
Tensor empty_activations(const Context& context, int64_t batch, int64_t tokens, int64_t num_features);

/// The chosen features of a two-layer MLP anew (see ColumnMlpParams). x: [B, T, C] with dense rows; first: [F, C];
/// second_transposed: [F, C_out]; activations: [B, T, F] with dense tokens or dense features, and out: [B, T, C_out],
/// dense; both are updated. Counts and indices are the caller's duty. Throws kShapeMismatch, kInvalidArgument.
void column_mlp_into(const Context& context, const Tensor& x, const Linear& first, Activation activation,
                     const Tensor& second_transposed, const FeatureSet& features, const Tensor& activations,
                     const Tensor& out);

/// Consecutive tokens, and the layers that their MLP has.
struct ColumnMlpPart {
  int64_t tokens = 0;
  Linear first;
  Tensor second_transposed;
};

/// The same of a sequence of one or two parts, of which each has token blocks of its own: its last one may be shorter.
/// The parts' tokens add up to T, their layers have the same sizes. features: of the first part's blocks, then of the
/// second's.
void column_mlp_into(const Context& context, const Tensor& x, const std::vector<ColumnMlpPart>& parts,
                     Activation activation, const FeatureSet& features, const Tensor& activations, const Tensor& out,
                     bool overlaps_last = false);

}  // namespace chipmunk::ops
