#pragma once

#include <cstdint>
#include <vector>

#include "support/reference.h"

/// The sparse ops as naive loops in float64.
namespace chipmunk::test {

/// Kept columns, one byte each: [B, H, G, M] for attention, [B, blocks, F] for the MLP.
struct KeptColumns {
  Dims shape;
  std::vector<uint8_t> kept;

  explicit KeptColumns(const Dims& dims) : shape(dims), kept(static_cast<size_t>(numel(dims))) {}
  int64_t rows() const { return numel(shape) / columns(); }
  int64_t columns() const { return shape[shape.rank() - 1]; }
  uint8_t& at(int64_t row, int64_t column) { return kept[static_cast<size_t>(row * columns() + column)]; }
  bool has(int64_t row, int64_t column) const { return kept[static_cast<size_t>(row * columns() + column)] != 0; }
  std::vector<int32_t> ids(int64_t row) const;
};

/// Attention of each query group over its kept keys alone. q: [B, N, H, D]; k, v: [B, M, H, D].
AttentionReference reference_column_attention(const Array& q, const Array& k, const Array& v,
                                              const KeptColumns& columns, int64_t group_size, double scale);

/// [B, H, G, M]: sum over each group's rows of exp(scale q k - lse); lse: [B, H, N].
Reference reference_column_sums(const Array& q, const Array& k, const Array& lse, int64_t group_size, double scale);

/// The chosen activations and the output of a two-layer MLP after one sparse step.
struct ColumnMlpReference {
  Reference activations, out;
};
/// x: [B, T, C]; weight1: [F, C]; bias1: [F] or empty; weight2: [F, C_out]; activations: [B, T, F]; out: [B, T, C_out].
ColumnMlpReference reference_column_mlp(const Array& x, const Array& weight1, const Array& bias1, Activation activation,
                                        const Array& weight2, const KeptColumns& features, int64_t block_rows,
                                        const Array& activations, const Array& out);

}  // namespace chipmunk::test
