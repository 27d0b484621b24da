#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sparse/schedule.h"

namespace chipmunk {

/// The sizes of a transformer and of one generation that the work depends on. Layers are taken as alike but for whose
/// MLPs they have.
struct TransformerShape {
  int num_layers = 1;
  int64_t tokens = 0;        ///< N, text and image or video
  int64_t text_tokens = 0;   ///< of those
  int64_t num_heads = 0;     ///< H
  int64_t head_dim = 0;      ///< D
  int64_t channels = 0;      ///< C
  int64_t mlp_features = 0;  ///< F
  int64_t group_size = 192;  ///< query rows that share columns
  int64_t block_size = 128;  ///< tokens that share hidden features
  /// The first layers, whose text has an MLP of its own: dense without SparsityConfig::Mlp::include_text.
  int text_mlp_layers = 0;
};

/// What one step is expected to do, all layers and model invocations together.
struct StepEstimate {
  double attention_kept = 1.0;  ///< mean fraction of the columns that is read: 1 on full steps, 0 on skipped ones
  double mlp_kept = 1.0;        ///< mean fraction of the hidden features that is computed
  double work = 0.0;            ///< multiply-adds of attention and MLP
  double dense_work = 0.0;      ///< those of the dense step
};

/// Expected fraction of the N columns that a sparse group keeps. Top-k and random columns are taken to be spread
/// evenly over the columns, so that those which are static too count once.
/// static_counts: static columns of each group (ColumnMask::count of static_columns), empty for none; read only with
/// should_compress_indices. Throws kInvalidArgument for sizes below 1.
double expected_columns_kept(const SparsityConfig::Attn& attn, const TransformerShape& shape,
                             std::span<const int64_t> static_counts = {});

/// Expected fraction of the F hidden features that a sparse block computes; 1 without top_keys.
double expected_features_kept(const SparsityConfig::Mlp& mlp, int64_t num_features);

/// Multiply-adds of one layer's attention where the sparse groups keep the fraction `kept` of the columns.
double attention_work(AttentionStep kind, const TransformerShape& shape, double kept);
/// Those of its MLP, over shape.tokens tokens. renews: the state keeps block means, which layers that always run dense
/// do not need.
double mlp_work(MlpStep kind, const TransformerShape& shape, double kept, bool renews);

/// The work of every step. Counted in multiply-adds, an addition, exponential or comparison as one, per layer:
/// - attention: dense 2 H N^2 D; over kept columns 2 H N K D, and H N D to add or subtract the cache; a refresh adds
///   column sums H N^2 and the selection H G N;
/// - MLP: full 2 N C F and the block means N F; sparse 2 N C K, and N K + N C for the caches; choosing features adds
///   their drift, N C + G C F + G F, and the selection G F.
/// Projections, norms and everything else that sparsity does not touch are left out. Adaptive skips are not foreseen.
/// Throws kInvalidArgument for sizes below 1, or text_tokens outside of [0, tokens].
std::vector<StepEstimate> estimate_work(const DenoisingSchedule& schedule, const SparsityConfig& config,
                                        const TransformerShape& shape, std::span<const int64_t> static_counts = {});

/// Sum of the steps' work over that of dense steps; 1 for no steps.
double share_of_dense_work(std::span<const StepEstimate> steps);

}  // namespace chipmunk
