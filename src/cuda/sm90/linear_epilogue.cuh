#pragma once

#include <type_traits>

#include "cuda/packs.cuh"
#include "cuda/sm90/linear_plan.h"
#include "cuda/sm90/warp_exchange.cuh"

/// What becomes of a linear's products, from shared memory to device memory (docs/kernels/linear.md). Warps that only
/// write take 16 rows of a part of a unit's columns at a time, a lane chunks of eight columns. An epilogue is made, and
/// asks for its operands, before the products are there.
namespace chipmunk::cuda::sm90::linear {

constexpr int kHeadDim = 128;
/// Columns of a part; a head, where there are heads.
constexpr int kPartColumns = kHeadDim;
using Exchange = WarpExchange<kPartColumns>;

/// A problem's operands of the epilogue; params.h has their shapes.
struct EpilogueArguments {
  const bf16* bias;  // or null
  const bf16* gate;  // kGated; or null
  const bf16* residual;
  const bf16* addend;
  bf16* out;
  int64_t gate_batch_stride, residual_batch_stride, residual_row_stride, addend_batch_stride, addend_row_stride;
  int64_t out_batch_stride, out_row_stride;
  int rows, columns;
  // kHeads
  const bf16 *q_weight, *k_weight;  // or null
  const float *cos, *sin;           // or null
  int head_columns;                 // of q, and of k
  float epsilon;
};

/// What a warp writes: Exchange::kRows rows of a part's columns.
struct WrittenRows {
  int batch, first_row, first_column;
  int rows, columns;  // that exist from there on; may be more than it writes, or none

  /// Whether the lane's chunk of a step exists.
  __device__ bool exists(int step) const { return row_exists(step) && column_exists(step % Exchange::kRowSteps); }
  __device__ bool row_exists(int step) const { return Exchange::row(step) < rows; }
  /// Of a row's steps.
  __device__ bool column_exists(int step) const { return Exchange::column(step) < columns; }
  __device__ int64_t row(int step) const { return first_row + Exchange::row(step); }
  __device__ int column(int step) const { return first_column + Exchange::column(step); }
};

__device__ inline RawPack load_chunk(const bf16* chunk) { return load_raw_pack<true>(chunk, 0, kPack); }
__device__ inline Pack load_products(const Exchange& exchange, int step) {
  const uint4 words = load_shared_16(exchange.chunk(step));
  return unpack({{words.x, words.y, words.z, words.w}});
}

/// A row of columns, of which a lane has its chunks: the same in all the rows it writes.
class ColumnChunks {
 public:
  /// row: from column 0 on; null for `otherwise` everywhere.
  __device__ ColumnChunks(const bf16* row, const WrittenRows& to, uint32_t otherwise) {
#pragma unroll
    for (int i = 0; i < Exchange::kRowSteps; ++i) {
      chunks_[i] = row != nullptr && to.column_exists(i) ? load_chunk(row + to.column(i))
                                                         : RawPack{{otherwise, otherwise, otherwise, otherwise}};
    }
  }
  __device__ Pack operator[](int step) const { return unpack(chunks_[step % Exchange::kRowSteps]); }

 private:
  RawPack chunks_[Exchange::kRowSteps];
};

/// residual + gate (products + bias + addend).
class GatedEpilogue {
 public:
  __device__ GatedEpilogue(const EpilogueArguments& a, const WrittenRows& to)
      : a_(a),
        to_(to),
        bias_(a.bias, to, 0),
        gate_(a.gate == nullptr ? nullptr : a.gate + to.batch * a.gate_batch_stride, to, kOnes) {
#pragma unroll
    for (int i = 0; i < Exchange::kSteps; ++i) {
      residual_[i] = ask(a.residual, a.residual_batch_stride, a.residual_row_stride, i);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) ask_addend(i);
  }

  __device__ void write(const Exchange& exchange) {
#pragma unroll
    for (int i = 0; i < Exchange::kSteps; ++i) {
      Pack x = load_products(exchange, i);
      const Pack bias = bias_[i], gate = gate_[i], residual = unpack(residual_[i]),
                 addend = unpack(addend_[i % kAhead]);
      if (i + kAhead < Exchange::kSteps) ask_addend(i + kAhead);
#pragma unroll
      for (int j = 0; j < kPack; ++j)
        x.values[j] = fmaf(x.values[j] + bias.values[j] + addend.values[j], gate.values[j], residual.values[j]);
      if (to_.exists(i)) {
        store_pack<true>(a_.out + to_.batch * a_.out_batch_stride + to_.row(i) * a_.out_row_stride, to_.column(i),
                         a_.columns, x);
      }
    }
  }

 private:
  static constexpr uint32_t kOnes = 0x3f803f80u;  // two of bf16
  /// Steps that addends are asked for ahead: registers do not hold all of them as well.
  static constexpr int kAhead = Exchange::kSteps / 2;

  /// The lane's chunk of an operand as large as the result; 0 without one.
  __device__ RawPack ask(const bf16* operand, int64_t batch_stride, int64_t row_stride, int step) const {
    return operand != nullptr && to_.exists(step)
               ? load_chunk(operand + to_.batch * batch_stride + to_.row(step) * row_stride + to_.column(step))
               : RawPack{};
  }
  __device__ void ask_addend(int step) {
    addend_[step % kAhead] = ask(a_.addend, a_.addend_batch_stride, a_.addend_row_stride, step);
  }

  const EpilogueArguments& a_;
  WrittenRows to_;
  ColumnChunks bias_, gate_;
  RawPack residual_[Exchange::kSteps], addend_[kAhead];
};

/// products + bias; a head of q or k normed, and rotated by the row's angles.
class HeadsEpilogue {
 public:
  __device__ HeadsEpilogue(const EpilogueArguments& a, const WrittenRows& to)
      : a_(a),
        to_(to),
        norm_weight_(to.first_column < a.head_columns       ? a.q_weight
                     : to.first_column < 2 * a.head_columns ? a.k_weight
                                                            : nullptr),
        rotates_(a.cos != nullptr && to.first_column < 2 * a.head_columns),
        bias_(a.bias, to, 0),
        scale_(norm_weight_ == nullptr ? nullptr : norm_weight_ - to.first_column, to, 0) {
#pragma unroll
    for (int row = 0; row < kAhead; ++row) ask_angles(row);
  }

  __device__ void write(const Exchange& exchange) {
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      Pack x[kChunks];
#pragma unroll
      for (int i = 0; i < kChunks; ++i) {
        x[i] = load_products(exchange, row * kChunks + i);
        const Pack bias = bias_[i];
#pragma unroll
        for (int j = 0; j < kPack; ++j) x[i].values[j] += bias.values[j];
      }
      if (norm_weight_ != nullptr) norm(x);
      if (rotates_) rotate(x, row);
      if (row + kAhead < kRows) ask_angles(row + kAhead);
#pragma unroll
      for (int i = 0; i < kChunks; ++i) {
        const int step = row * kChunks + i;
        if (to_.exists(step)) {
          store_pack<true>(a_.out + to_.batch * a_.out_batch_stride + to_.row(step) * a_.out_row_stride,
                           to_.column(step), a_.columns, x[i]);
        }
      }
    }
  }

 private:
  /// Of a lane: rows, and chunks of each; eight lanes share a row.
  static constexpr int kChunks = Exchange::kRowSteps, kRows = Exchange::kSteps / kChunks;
  /// Rows whose angles are asked for ahead.
  static constexpr int kAhead = 2;

  __device__ void norm(Pack (&x)[kChunks]) const {
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
#pragma unroll
      for (int j = 0; j < kPack; ++j) squares = fmaf(x[i].values[j], x[i].values[j], squares);
    }
#pragma unroll
    for (int lanes = 1; lanes < 8; lanes *= 2) squares += __shfl_xor_sync(0xffffffffu, squares, lanes);
    const float inverse = rsqrtf(squares * (1.0f / kHeadDim) + a_.epsilon);
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      const Pack scale = scale_[i];
#pragma unroll
      for (int j = 0; j < kPack; ++j) x[i].values[j] *= inverse * scale.values[j];
    }
  }

  __device__ void ask_angles(int row) {
    if (!rotates_ || !to_.row_exists(row * kChunks)) return;
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      const int64_t at = to_.row(row * kChunks) * (kHeadDim / 2) + Exchange::column(i) / 2;
      cos_[row % kAhead][i] = *reinterpret_cast<const float4*>(a_.cos + at);
      sin_[row % kAhead][i] = *reinterpret_cast<const float4*>(a_.sin + at);
    }
  }
  __device__ void rotate(Pack (&x)[kChunks], int row) const {
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      const float4 c = cos_[row % kAhead][i], s = sin_[row % kAhead][i];
      const float cos[4] = {c.x, c.y, c.z, c.w}, sin[4] = {s.x, s.y, s.z, s.w};
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        float &first = x[i].values[2 * pair], &second = x[i].values[2 * pair + 1];
        const float turned = first * cos[pair] - second * sin[pair];
        second = first * sin[pair] + second * cos[pair];
        first = turned;
      }
    }
  }

  const EpilogueArguments& a_;
  WrittenRows to_;
  const bf16* norm_weight_;
  bool rotates_;
  ColumnChunks bias_, scale_;
  float4 cos_[kAhead][kChunks], sin_[kAhead][kChunks];
};

/// GELU(products + bias). kAcross: a bias for each row.
template <bool kAcross>
class ActivatedEpilogue {
 public:
  __device__ ActivatedEpilogue(const EpilogueArguments& a, const WrittenRows& to)
      : a_(a), to_(to), bias_(kAcross ? nullptr : a.bias, to, 0) {
    if constexpr (kAcross) {
#pragma unroll
      for (int row = 0; row < kRows; ++row) {
        const int step = row * Exchange::kRowSteps;
        row_bias_[row] = a.bias != nullptr && to.row_exists(step) ? to_float(a.bias[to.row(step)]) : 0.0f;
      }
    }
  }

  __device__ void write(const Exchange& exchange) const {
#pragma unroll
    for (int i = 0; i < Exchange::kSteps; ++i) {
      Pack x = load_products(exchange, i);
      const Pack bias = bias_[i];
#pragma unroll
      for (int j = 0; j < kPack; ++j) {
        const float of_value = kAcross ? row_bias_[i / Exchange::kRowSteps] : bias.values[j];
        x.values[j] = activate<Activation::kGeluTanh>(x.values[j] + of_value);
      }
      if (to_.exists(i)) {
        store_pack<true>(a_.out + to_.batch * a_.out_batch_stride + to_.row(i) * a_.out_row_stride, to_.column(i),
                         a_.columns, x);
      }
    }
  }

 private:
  static constexpr int kRows = Exchange::kSteps / Exchange::kRowSteps;

  const EpilogueArguments& a_;
  WrittenRows to_;
  ColumnChunks bias_;
  float row_bias_[kRows];
};

template <Kind kKind>
using Epilogue = std::conditional_t<
    kKind == Kind::kHeads, HeadsEpilogue,
    std::conditional_t<kKind == Kind::kGated, GatedEpilogue, ActivatedEpilogue<kKind == Kind::kAcross>>>;

}  // namespace chipmunk::cuda::sm90::linear
