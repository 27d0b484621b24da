#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "chipmunk/pipeline.h"
#include "core/context.h"
#include "sparse/attention_state.h"
#include "sparse/config.h"
#include "sparse/mlp_state.h"
#include "sparse/schedule.h"

namespace chipmunk {

/// Of SparseTransformerState::mlp.
struct SparseMlpOptions {
  int64_t dense_rows = 0;      ///< tokens of the layer whose MLP is computed elsewhere, for the records
  bool overlaps_last = false;  ///< see ops::LinearCall; sparse steps make use of it
};

/// Everything that the sparse method keeps for one generation of one transformer: a state per guidance branch and
/// layer, made on first use, and the last hidden states that skipped steps reuse. Not shared between generations.
class SparseTransformerState {
 public:
  struct Options {
    SparsityConfig config;
    int num_layers = 0;  ///< all kinds of blocks, in the order in which they run
    int num_branches = 1;
    uint64_t seed = 0;
    bool record = false;  ///< collect StepRecords
  };

  /// schedule: what DenoisingSchedule::sparse made of the config (or dense).
  SparseTransformerState(DenoisingSchedule schedule, Options options);

  /// Before each step: what attention and MLP calls belong to. skipped: adaptive step caching turned it into a skip.
  void begin_step(int step, bool skipped = false);
  /// For the records: what adaptive step caching expected of the step that began last.
  void note_movement(double movement);
  /// The transformer is to be skipped on this step: last_hidden() stands for its blocks.
  bool skips() const { return skips_; }
  /// Hidden states are worth keeping: some later step may be a skip.
  bool keeps_hidden() const { return keeps_hidden_; }
  /// The hidden states after the last block of a branch's last run; empty before.
  Tensor& last_hidden(int branch) { return last_hidden_[static_cast<size_t>(branch)]; }

  /// out = attention of a layer. q, k, v, out: [B, N, H, D]; the text tokens are the first ones. overlaps_last: see
  /// ops::LinearCall; sparse steps make use of it.
  void attention(const Context& context, int branch, int layer, int64_t text_tokens, const Tensor& q, const Tensor& k,
                 const Tensor& v, const Tensor& out, bool overlaps_last = false);

  /// Whether a layer's MLP runs through mlp(): false where it is always dense.
  bool has_sparse_mlp(int layer) const;
  /// Whether mlp() takes the text's tokens too in layers where they have an MLP of their own.
  bool has_sparse_text_mlp() const { return options_.config.mlp.include_text; }
  /// What mlp() needs besides the MLP itself, ahead of the same layer's mlp(): see SparseMlpState::prepare.
  bool prepare_mlp(const Context& context, int branch, int layer, const Tensor& x, const MlpParts& parts);
  /// MLP(x) of a layer (see SparseMlpState), to be read only, before the layer's next step.
  Tensor mlp(const Context& context, int branch, int layer, const Tensor& x, const MlpParts& parts,
             const SparseMlpOptions& options = {});
  /// For the records: a layer's MLP of `rows` tokens ran densely.
  void count_dense_mlp(int layer, int64_t batch, int64_t rows, int64_t channels, int64_t features);

  const DenoisingSchedule& schedule() const { return schedule_; }
  /// One a step that began. Means are complete once the step's forwards have run. Empty without Options::record.
  std::vector<StepRecord> records() const;

 private:
  struct Layer {
    std::unique_ptr<SparseAttentionState> attention;
    std::unique_ptr<SparseMlpState> mlp;
    Tensor last_output;  // of the attention, in host memory; only while recording
  };
  /// Sums over the calls of one layer in one step.
  struct LayerSums {
    int attention_calls = 0, mlp_calls = 0, mass_calls = 0, change_calls = 0;
    LayerRecord sums;
  };

  Layer& layer_of(int branch, int layer);
  SparseMlpState& mlp_of(int branch, int layer);
  std::shared_ptr<const SparseAttentionPlan> attention_plan(const Context& context, const Tensor& q,
                                                            int64_t text_tokens);
  void record_attention(const Context& context, AttentionStep kind, int layer, Layer& state, const Tensor& out);
  void record_mlp(const Context& context, MlpStep kind, int layer, const SparseMlpState& state, const Tensor& x,
                  int64_t features, int64_t dense_rows);

  DenoisingSchedule schedule_;
  Options options_;
  int step_ = 0;
  bool skips_ = false, keeps_hidden_ = false;
  std::vector<Layer> layers_;  // [branches, layers]
  std::vector<Tensor> last_hidden_;
  std::shared_ptr<const SparseAttentionPlan> attention_plan_;
  std::shared_ptr<const SparseMlpPlan> mlp_plan_;
  std::vector<StepRecord> records_;
  std::vector<std::vector<LayerSums>> sums_;  // [steps begun, layers]
};

}  // namespace chipmunk
