#include "timed_context.h"

#include <numeric>
#include <utility>

#include "backend.h"

namespace chipmunk::cli {
namespace {

/// Bytes of `count` elements of a buffer; none of one that is not given.
template <class Buffer>
double bytes(const Buffer& buffer, int64_t count) {
  return buffer.data == nullptr ? 0.0 : static_cast<double>(count) * static_cast<double>(size_of(buffer.dtype));
}

double float_bytes(const float* data, int64_t count) { return bytes(In{data, DType::kF32}, count); }

/// Elements that a strided operand has, repetitions aside.
int64_t distinct(int rank, const int64_t* shape, const int64_t* strides) {
  int64_t count = 1;
  for (int i = 0; i < rank; ++i) count *= strides[i] == 0 ? 1 : shape[i];
  return count;
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

OpNote memory(double bytes) { return {OpKind::kMemory, 0.0, bytes, {}, {}}; }

OpNote note(const LinearParams& p) {
  const int64_t m = p.batch * p.rows, n = p.out_features, k = p.in_features;
  return {OpKind::kLinear,
          2.0 * static_cast<double>(m * n) * static_cast<double>(k),
          bytes(p.x, m * k) + bytes(p.weight, n * k) + bytes(p.bias, n) + bytes(p.gate, p.batch * n) +
              bytes(p.residual, m * n) + bytes(p.addend, m * n) + bytes(p.out, m * n),
          {m, 0, n, k, p.activation, p.residual.data != nullptr, p.gate.data != nullptr, p.addend.data != nullptr,
           p.heads.heads, p.weight_scale != nullptr},
          {}};
}

OpNote note(const LinearPairParams& p) {
  OpNote note = cli::note(p.first);
  const OpNote other = cli::note(p.second);
  note.flops += other.flops;
  note.bytes += other.bytes;
  note.linear.second_rows = other.linear.rows;
  return note;
}

OpNote note(const QuantizeRowsParams& p) {
  const int64_t count = p.batch * p.rows * p.channels;
  return memory(bytes(p.x, count) + bytes(p.out, count));
}
OpNote note(const DequantizeRowsParams& p) {
  return memory(bytes(p.x, p.rows * p.channels) + bytes(p.out, p.rows * p.channels));
}

OpNote note(const AttentionParams& p) {
  const int64_t rows = p.batch * p.query_tokens * p.heads, keys = p.batch * p.key_tokens * p.kv_heads;
  // Of a causal square one half is seen.
  const double pairs = static_cast<double>(rows * p.key_tokens) * (p.causal ? 0.5 : 1.0);
  return {OpKind::kAttention,
          4.0 * pairs * static_cast<double>(p.head_dim),
          bytes(p.q, rows * p.head_dim) + bytes(p.k, keys * p.head_dim) + bytes(p.v, keys * p.head_dim) +
              bytes(p.out, rows * p.head_dim) + float_bytes(p.lse, rows),
          {},
          {}};
}

OpNote note(const Conv2dParams& p) {
  const int64_t out = p.batch * p.out_height * p.out_width * p.out_channels;
  const int64_t depth = p.kernel_height * p.kernel_width * p.in_channels;
  return {OpKind::kConvolution,
          2.0 * static_cast<double>(out) * static_cast<double>(depth),
          bytes(p.x, p.batch * p.in_height * p.in_width * p.in_channels) + bytes(p.weight, p.out_channels * depth) +
              bytes(p.residual, out) + bytes(p.out, out),
          {},
          {}};
}

OpNote note(const ColumnAttentionParams& p) {
  const int64_t groups = p.batch * p.heads * ceil_div(p.query_tokens, p.group_size);
  // The last group of a head may have fewer rows.
  const double rows = static_cast<double>(p.batch * p.heads * p.query_tokens) / static_cast<double>(groups);
  return {OpKind::kColumnAttention, 0.0, 0.0, {}, {p.counts, groups, 4.0 * rows * static_cast<double>(p.head_dim)}};
}
OpNote note(const ColumnMlpParams& p) {
  const int64_t groups = p.batch * ceil_div(p.rows, p.block_rows);
  const double rows = static_cast<double>(p.batch * p.rows) / static_cast<double>(groups);
  return {OpKind::kColumnMlp,
          0.0,
          0.0,
          {},
          {p.counts, groups, 2.0 * rows * static_cast<double>(p.channels + p.out_channels)}};
}
OpNote note(const ColumnMlpPairParams& p) {
  // Their counts follow each other, and all blocks but the last of each have as many rows.
  OpNote first = note(p.first), second = note(p.second);
  first.kept.groups += second.kept.groups;
  return first;
}
OpNote note(const SelectColumnsParams& p) {
  const int64_t groups = p.batch * p.heads * p.groups;
  return {OpKind::kSelection, 0.0, float_bytes(p.column_sums, groups * p.key_tokens), {}, {}};
}
OpNote note(const SelectFeaturesParams& p) {
  const int64_t means = p.batch * p.mean_blocks * p.features;
  return {OpKind::kSelection, 0.0, bytes(p.means, means) + float_bytes(p.cached_means, means), {}, {}};
}

OpNote note(const BlockMeanParams& p) {
  // The means are few.
  return memory(bytes(p.x, p.batch * p.rows * p.channels));
}
OpNote note(const BlockMeanLinearParams& p) {
  const auto& [first, second] = p.parts;
  OpNote note = p.count == 2 ? cli::note(LinearPairParams{first.linear, second.linear}) : cli::note(first.linear);
  for (int i = 0; i < p.count; ++i) note.bytes += cli::note(p.parts[i].mean).bytes;
  return note;
}
OpNote note(const GatedAddParams& p) {
  const int64_t count = p.batch * p.rows * p.channels;
  return memory(bytes(p.x, count) + bytes(p.residual, count) + bytes(p.out, count));
}
OpNote note(const LayerNormParams& p) {
  const int64_t count = p.batch * p.rows * p.channels;
  return memory(bytes(p.x, count) + bytes(p.update, count) + bytes(p.updated, count) + bytes(p.out, count));
}
OpNote note(const LayerNormPairParams& p) { return memory(note(p.first).bytes + note(p.second).bytes); }
OpNote note(const QkNormRopeParams& p) {
  const int64_t angles = p.tokens * p.head_dim / 2, count = p.batch * p.tokens * p.heads * p.head_dim;
  // In place: read and written.
  return memory(2.0 * bytes(p.q, count) + 2.0 * bytes(p.k, count) + float_bytes(p.cos, angles) +
                float_bytes(p.sin, angles));
}
OpNote note(const GroupNormParams& p) {
  const int64_t count = p.batch * p.pixels * p.channels;
  return memory(bytes(p.x, count) + bytes(p.out, count));
}
template <class Params>
OpNote rows_note(const Params& p) {
  return memory(bytes(p.x, p.rows * p.channels) + bytes(p.out, p.rows * p.channels));
}
OpNote note(const RmsNormParams& p) { return rows_note(p); }
OpNote note(const ActivationParams& p) { return rows_note(p); }
OpNote note(const ClampParams& p) { return rows_note(p); }
OpNote note(const GatedActivationParams& p) {
  OpNote note = rows_note(p);
  note.bytes += bytes(p.gate, p.rows * p.channels);
  return note;
}
OpNote note(const CopyParams& p) {
  return memory(bytes(p.x, distinct(p.rank, p.shape, p.x_strides)) +
                bytes(p.out, distinct(p.rank, p.shape, p.out_strides)));
}
OpNote note(const AxpbyParams& p) {
  return memory(bytes(p.a, distinct(p.rank, p.shape, p.a_strides)) +
                bytes(p.b, distinct(p.rank, p.shape, p.b_strides)) +
                bytes(p.out, distinct(p.rank, p.shape, p.out_strides)));
}
OpNote note(const EmbeddingParams& p) {
  return memory(bytes(p.table, p.count * p.channels) + bytes(p.out, p.count * p.channels));
}
OpNote note(const TimestepEmbeddingParams& p) { return memory(bytes(p.out, p.batch * p.channels)); }
OpNote note(const UpsampleNearestParams& p) {
  const int64_t count = p.batch * p.height * p.width * p.channels;
  return memory(bytes(p.x, count) + bytes(p.out, count * p.factor * p.factor));
}
OpNote note(const BlendParams& p) {
  const int64_t count = p.outer * p.extent * p.inner;
  return memory(bytes(p.previous, count) + 2.0 * bytes(p.out, count));
}
OpNote note(const QuantizeImageParams& p) { return memory(bytes(p.x, p.count) + static_cast<double>(p.count)); }

}  // namespace

class TimedContext::TimingBackend : public Backend {
 public:
  explicit TimingBackend(std::shared_ptr<Backend> inner) : inner_(std::move(inner)) {}

  std::vector<TimedOp> take(DeviceRuntime& runtime) {
    runtime.synchronize();
    std::vector<TimedOp> ops;
    for (const Span& span : spans_) {
      ops.push_back({span.note, runtime.elapsed_ms(*span.begin, *span.end)});
      count_kept(runtime, &ops.back().note);
    }
    spans_.clear();
    return ops;
  }

  void linear(const Context& c, const LinearParams& p) override { timed(c, &Backend::linear, p); }
  void linear_pair(const Context& c, const LinearPairParams& p) override { timed(c, &Backend::linear_pair, p); }
  bool takes_dense_tokens(const LinearParams* calls, int count) const override {
    return inner_->takes_dense_tokens(calls, count);
  }
  bool fuses_addend(const LinearParams* calls, int count) const override { return inner_->fuses_addend(calls, count); }
  void quantize_rows(const Context& c, const QuantizeRowsParams& p) override { timed(c, &Backend::quantize_rows, p); }
  void dequantize_rows(const Context& c, const DequantizeRowsParams& p) override {
    timed(c, &Backend::dequantize_rows, p);
  }
  void attention(const Context& c, const AttentionParams& p) override { timed(c, &Backend::attention, p); }
  void column_attention(const Context& c, const ColumnAttentionParams& p) override {
    timed(c, &Backend::column_attention, p);
  }
  void select_columns(const Context& c, const SelectColumnsParams& p) override {
    timed(c, &Backend::select_columns, p);
  }
  void block_mean(const Context& c, const BlockMeanParams& p) override { timed(c, &Backend::block_mean, p); }
  void block_mean_linear(const Context& c, const BlockMeanLinearParams& p) override {
    timed(c, &Backend::block_mean_linear, p);
  }
  void select_features(const Context& c, const SelectFeaturesParams& p) override {
    timed(c, &Backend::select_features, p);
  }
  void column_mlp(const Context& c, const ColumnMlpParams& p) override { timed(c, &Backend::column_mlp, p); }
  void column_mlp_pair(const Context& c, const ColumnMlpPairParams& p) override {
    timed(c, &Backend::column_mlp_pair, p);
  }
  void require_fp8_linears() const override { inner_->require_fp8_linears(); }
  bool wants_dense_tokens() const override { return inner_->wants_dense_tokens(); }
  void gated_add(const Context& c, const GatedAddParams& p) override { timed(c, &Backend::gated_add, p); }
  void layer_norm(const Context& c, const LayerNormParams& p) override { timed(c, &Backend::layer_norm, p); }
  void layer_norm_pair(const Context& c, const LayerNormPairParams& p) override {
    timed(c, &Backend::layer_norm_pair, p);
  }
  void rms_norm(const Context& c, const RmsNormParams& p) override { timed(c, &Backend::rms_norm, p); }
  void qk_norm_rope(const Context& c, const QkNormRopeParams& p) override { timed(c, &Backend::qk_norm_rope, p); }
  void group_norm(const Context& c, const GroupNormParams& p) override { timed(c, &Backend::group_norm, p); }
  void activation(const Context& c, const ActivationParams& p) override { timed(c, &Backend::activation, p); }
  void clamp(const Context& c, const ClampParams& p) override { timed(c, &Backend::clamp, p); }
  void gated_activation(const Context& c, const GatedActivationParams& p) override {
    timed(c, &Backend::gated_activation, p);
  }
  void copy(const Context& c, const CopyParams& p) override { timed(c, &Backend::copy, p); }
  void axpby(const Context& c, const AxpbyParams& p) override { timed(c, &Backend::axpby, p); }
  void embedding(const Context& c, const EmbeddingParams& p) override { timed(c, &Backend::embedding, p); }
  void timestep_embedding(const Context& c, const TimestepEmbeddingParams& p) override {
    timed(c, &Backend::timestep_embedding, p);
  }
  void conv2d(const Context& c, const Conv2dParams& p) override { timed(c, &Backend::conv2d, p); }
  void upsample_nearest(const Context& c, const UpsampleNearestParams& p) override {
    timed(c, &Backend::upsample_nearest, p);
  }
  void blend(const Context& c, const BlendParams& p) override { timed(c, &Backend::blend, p); }
  void quantize_image(const Context& c, const QuantizeImageParams& p) override {
    timed(c, &Backend::quantize_image, p);
  }

 private:
  struct Span {
    OpNote note;
    std::unique_ptr<Event> begin, end;
  };

  static void count_kept(DeviceRuntime& runtime, OpNote* note) {
    if (note->kept.counts == nullptr) return;
    std::vector<int32_t> counts(static_cast<size_t>(note->kept.groups));
    runtime.copy(counts.data(), Device{}, note->kept.counts, runtime.device(), counts.size() * sizeof(int32_t),
                 StreamKind::kCompute);
    runtime.synchronize();
    note->flops = note->kept.flops_each * std::accumulate(counts.begin(), counts.end(), 0.0);
  }

  template <class Params>
  void timed(const Context& context, void (Backend::*op)(const Context&, const Params&), const Params& params) {
    DeviceRuntime& runtime = context.runtime();
    auto begin = runtime.record(StreamKind::kCompute);
    ((*inner_).*op)(context, params);
    spans_.push_back({note(params), std::move(begin), runtime.record(StreamKind::kCompute)});
  }

  std::shared_ptr<Backend> inner_;
  std::vector<Span> spans_;
};

// Runtime and backend live as long as the context they came from.
TimedContext::TimedContext(const Context& inner)
    : owner_(std::make_shared<Context>(inner)),
      backend_(std::make_shared<TimingBackend>(std::shared_ptr<Backend>(owner_, &owner_->backend()))),
      context_(std::shared_ptr<DeviceRuntime>(owner_, &owner_->runtime()), backend_, inner.activation_dtype()) {}

std::vector<TimedOp> TimedContext::take() { return backend_->take(context_.runtime()); }

}  // namespace chipmunk::cli
