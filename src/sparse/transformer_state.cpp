#include "sparse/transformer_state.h"

#include <algorithm>
#include <string>
#include <utility>

#include "chipmunk/error.h"
#include "ops/attention.h"
#include "ops/elementwise.h"
#include "sparse/attention_statistics.h"
#include "sparse/static_columns.h"
#include "sparse/work_estimate.h"

namespace chipmunk {
namespace {

/// The static columns of an image model, whose text comes first; no rows where there are none.
ColumnMask image_static_columns(const SparsityConfig::Attn& config, int64_t tokens, int64_t text_tokens,
                                int64_t group_size) {
  if (!config.should_compress_indices && !config.include_text_columns) return {};
  ColumnMask mask((tokens + group_size - 1) / group_size, tokens);
  keep_columns(mask, 0, text_tokens);
  if (config.should_compress_indices) {
    keep_all_in_groups_of(mask, group_size, 0, text_tokens);
    add_1d_window(mask, group_size, config.local_1d_window);
  }
  return mask;
}

double mean_fraction(const Context& context, const Tensor& counts, int64_t of) {
  const Tensor host = context.to_host(counts);
  double sum = 0.0;
  for (int64_t i = 0; i < host.numel(); ++i) sum += static_cast<double>(host.data_as<int32_t>()[i]);
  return sum / static_cast<double>(host.numel()) / static_cast<double>(of);
}

Tensor host_f32(const Context& context, const Tensor& tensor) {
  const Tensor copy = context.empty(tensor.shape(), DType::kF32);
  ops::copy_into(context, tensor, copy);
  return context.to_host(copy);
}

}  // namespace

SparseTransformerState::SparseTransformerState(DenoisingSchedule schedule, Options options)
    : schedule_(std::move(schedule)), options_(std::move(options)) {
  layers_.resize(static_cast<size_t>(options_.num_branches) * static_cast<size_t>(options_.num_layers));
  last_hidden_.resize(static_cast<size_t>(options_.num_branches));
  keeps_hidden_ = std::any_of(schedule_.steps().begin(), schedule_.steps().end(),
                              [](const Step& step) { return step.may_skip || step.attention == AttentionStep::kSkip; });
}

void SparseTransformerState::begin_step(int step, bool skipped) {
  const Step& planned = schedule_.steps().at(static_cast<size_t>(step));
  step_ = step;
  skips_ = skipped || planned.attention == AttentionStep::kSkip;
  if (!options_.record) return;
  StepRecord record;
  record.index = step;
  record.sigma = static_cast<double>(planned.sigma);
  record.attention = to_string(skips_ ? AttentionStep::kSkip : planned.attention);
  record.mlp = to_string(skips_ ? MlpStep::kSkip : planned.mlp);
  if (skips_ && !records_.empty()) {
    record.dense_multiply_adds = records_.back().dense_multiply_adds;
  }
  records_.push_back(record);
  sums_.emplace_back(static_cast<size_t>(options_.num_layers));
}

void SparseTransformerState::note_movement(double movement) {
  if (options_.record) records_.back().movement = movement;
}

SparseTransformerState::Layer& SparseTransformerState::layer_of(int branch, int layer) {
  return layers_.at(static_cast<size_t>(branch * options_.num_layers + layer));
}

std::shared_ptr<const SparseAttentionPlan> SparseTransformerState::attention_plan(const Context& context,
                                                                                  const Tensor& q,
                                                                                  int64_t text_tokens) {
  if (!attention_plan_) {
    const AttentionShape shape{q.dim(0), q.dim(1), q.dim(2), q.dim(3)};
    const SparsityConfig::Attn& config = options_.config.attn;
    attention_plan_ = std::make_shared<SparseAttentionPlan>(SparseAttentionPlan::make(
        context, config, shape, shape.tokens - text_tokens,
        image_static_columns(config, shape.tokens, text_tokens, SparseAttentionPlan().group_size), options_.seed));
  }
  const AttentionShape& planned = attention_plan_->shape;
  if (Dims{planned.batch, planned.tokens, planned.heads, planned.head_dim} != q.shape()) {
    throw Error(ErrorCode::kShapeMismatch, "the attention's size changed during a generation, found " + q.describe(),
                "sparse attention");
  }
  return attention_plan_;
}

void SparseTransformerState::attention(const Context& context, int branch, int layer, int64_t text_tokens,
                                       const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                                       bool overlaps_last) {
  const bool sparse = options_.config.attn.is_enabled && layer >= options_.config.attn.first_n_dense_layers;
  const AttentionStep kind = sparse ? schedule_.attention_kind(step_, layer) : AttentionStep::kDense;
  Layer& state = layer_of(branch, layer);
  if (sparse) {
    if (!state.attention) {
      state.attention = std::make_unique<SparseAttentionState>(attention_plan(context, q, text_tokens), branch, layer);
    }
    state.attention->forward(context, kind, step_, q, k, v, out, {}, overlaps_last);
  } else {
    ops::attention_into(context, q, k, v, out);
  }
  if (options_.record) record_attention(context, kind, layer, state, out);
}

bool SparseTransformerState::has_sparse_mlp(int layer) const {
  return options_.config.mlp.is_enabled && layer >= options_.config.mlp.first_n_dense_layers;
}

SparseMlpState& SparseTransformerState::mlp_of(int branch, int layer) {
  Layer& state = layer_of(branch, layer);
  if (!state.mlp) {
    if (!mlp_plan_) {
      mlp_plan_ = std::make_shared<SparseMlpPlan>(SparseMlpPlan::make(options_.config.mlp, options_.seed));
    }
    state.mlp = std::make_unique<SparseMlpState>(mlp_plan_, branch, layer);
  }
  return *state.mlp;
}

bool SparseTransformerState::prepare_mlp(const Context& context, int branch, int layer, const Tensor& x,
                                         const MlpParts& parts) {
  return mlp_of(branch, layer).prepare(context, schedule_.mlp_kind(step_, layer), step_, x, parts);
}

Tensor SparseTransformerState::mlp(const Context& context, int branch, int layer, const Tensor& x,
                                   const MlpParts& parts, const SparseMlpOptions& options) {
  SparseMlpState& state = mlp_of(branch, layer);
  const MlpStep kind = schedule_.mlp_kind(step_, layer);
  state.compute(context, kind, x, parts, options.overlaps_last);
  if (options_.record) {
    record_mlp(context, kind, layer, state, x, parts.front().weights.first.out_features(), options.dense_rows);
  }
  return state.output();
}

void SparseTransformerState::count_dense_mlp(int layer, int64_t batch, int64_t rows, int64_t channels,
                                             int64_t features) {
  if (!options_.record) return;
  const double work = 2.0 * static_cast<double>(batch) * static_cast<double>(rows) * static_cast<double>(channels) *
                      static_cast<double>(features);
  records_.back().multiply_adds += work;
  records_.back().dense_multiply_adds += work;
  LayerSums& sums = sums_.back().at(static_cast<size_t>(layer));
  ++sums.mlp_calls;
  sums.sums.mlp_kept += 1.0;
}

void SparseTransformerState::record_attention(const Context& context, AttentionStep kind, int layer, Layer& state,
                                              const Tensor& out) {
  LayerSums& sums = sums_.back().at(static_cast<size_t>(layer));
  const double kept =
      kind == AttentionStep::kDense ? 1.0 : mean_fraction(context, state.attention->columns().counts, out.dim(1));
  ++sums.attention_calls;
  sums.sums.attention_kept += kind == AttentionStep::kSparse ? kept : 1.0;
  if (state.attention && !state.attention->column_sums().empty()) {
    const std::vector<double> mass = attention_mass(context.to_host(state.attention->column_sums()));
    sums.sums.attention_mass.resize(mass.size());
    for (size_t i = 0; i < mass.size(); ++i) sums.sums.attention_mass[i] += mass[i];
    ++sums.mass_calls;
  }
  const Tensor output = host_f32(context, out);
  if (!state.last_output.empty()) {
    if (sums.change_calls++ == 0) sums.sums.attention_change = 0.0;
    sums.sums.attention_change += relative_change(output, state.last_output);
  }
  state.last_output = output;

  TransformerShape shape;
  shape.tokens = out.dim(1);
  shape.num_heads = out.dim(2);
  shape.head_dim = out.dim(3);
  shape.group_size = SparseAttentionPlan().group_size;
  const double batch = static_cast<double>(out.dim(0));
  records_.back().multiply_adds += batch * attention_work(kind, shape, kept);
  records_.back().dense_multiply_adds += batch * attention_work(AttentionStep::kDense, shape, 1.0);
}

void SparseTransformerState::record_mlp(const Context& context, MlpStep kind, int layer, const SparseMlpState& state,
                                        const Tensor& x, int64_t features, int64_t dense_rows) {
  LayerSums& sums = sums_.back().at(static_cast<size_t>(layer));
  const double kept = kind == MlpStep::kFull ? 1.0 : mean_fraction(context, state.features().counts, features);
  const double rows = static_cast<double>(x.dim(1)), other_rows = static_cast<double>(dense_rows);
  ++sums.mlp_calls;
  sums.sums.mlp_kept += (rows * kept + other_rows) / (rows + other_rows);

  TransformerShape shape;
  shape.tokens = x.dim(1);
  shape.channels = x.dim(2);
  shape.mlp_features = features;
  const double batch = static_cast<double>(x.dim(0));
  const double elsewhere = 2.0 * other_rows * static_cast<double>(x.dim(2)) * static_cast<double>(features);
  records_.back().multiply_adds += batch * (mlp_work(kind, shape, kept, true) + elsewhere);
  records_.back().dense_multiply_adds += batch * (mlp_work(MlpStep::kFull, shape, 1.0, false) + elsewhere);
}

std::vector<StepRecord> SparseTransformerState::records() const {
  std::vector<StepRecord> records = records_;
  for (size_t i = 0; i < records.size(); ++i) {
    for (const LayerSums& sums : sums_[i]) {
      LayerRecord layer = sums.sums;
      // The default of an untouched record is 1; sums start there too.
      layer.attention_kept = sums.attention_calls > 0 ? (layer.attention_kept - 1.0) / sums.attention_calls : 0.0;
      layer.mlp_kept = sums.mlp_calls > 0 ? (layer.mlp_kept - 1.0) / sums.mlp_calls : 0.0;
      for (double& mass : layer.attention_mass) mass /= sums.mass_calls;
      if (sums.change_calls > 0) layer.attention_change /= sums.change_calls;
      records[i].layers.push_back(layer);
    }
  }
  return records;
}

}  // namespace chipmunk
