#pragma once

#include <type_traits>

#include "cuda/float_types.cuh"
#include "cuda/sm90/linear_plan.h"
#include "cuda/sm90/merged_rows.cuh"

/// What becomes of a linear's sums in a warpgroup's registers until they are in device memory (docs/kernels/linear.md).
/// Of a warp's 16 rows, a thread has two, 8 apart: sums[4 j + 2 r + i] is row r, column 8 j + 2 (lane % 4) + i of the
/// unit's. An epilogue is made and asks for its operands while the last products are under way.
namespace chipmunk::cuda::sm90::linear {

constexpr int kHeadDim = 128;
/// Where each warp that computes brings a part of its results into the order of memory.
constexpr int kExchangeBytes = WarpExchange<kHeadDim>::kBytes;

/// A problem's operands of the epilogue; params.h has their shapes.
struct EpilogueArguments {
  const bf16* bias;  // or null
  const bf16* gate;  // kGated; or null
  const bf16* residual;
  bf16* out;
  int64_t gate_batch_stride, residual_batch_stride, residual_row_stride, out_batch_stride, out_row_stride;
  int rows, columns;
  // kHeads
  const bf16 *q_weight, *k_weight;  // or null
  const float *cos, *sin;           // or null
  int head_columns;                 // of q, and of k
  float epsilon;

  __device__ RowsFrom<bf16> out_from(int batch, int row, int column) const {
    return {out + batch * out_batch_stride + row * out_row_stride + column, out_row_stride};
  }
  __device__ RowsFrom<const bf16> residual_from(int batch, int row, int column) const {
    if (residual == nullptr) return {};
    return {residual + batch * residual_batch_stride + row * residual_row_stride + column, residual_row_stride};
  }
};

/// Of a row of columns, what the thread has of a unit: pairs.
template <int kWidth>
struct ColumnPairs {
  static constexpr int kBlocks = kWidth / 8;
  uint32_t pairs[kBlocks];

  /// row: of the unit's first column on, of which `columns` exist; a multiple of 8.
  __device__ void load(const bf16* row, int columns) {
    const bf16* mine = row + threadIdx.x % 4 * 2;
    if (columns >= kWidth) {
#pragma unroll
      for (int j = 0; j < kBlocks; ++j) pairs[j] = *reinterpret_cast<const uint32_t*>(mine + 8 * j);
    } else {
#pragma unroll
      for (int j = 0; j < kBlocks; ++j) {
        pairs[j] = 8 * j < columns ? *reinterpret_cast<const uint32_t*>(mine + 8 * j) : 0;
      }
    }
  }
  __device__ void fill(uint32_t pair) {
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) pairs[j] = pair;
  }
};

/// residual + gate (sums + bias).
template <int kWidth>
class GatedEpilogue {
 public:
  __device__ GatedEpilogue(const EpilogueArguments& a, uint32_t exchange, int batch, int first_row, int first_column)
      : rows_(exchange, a.residual_from(batch, first_row, first_column), a.out_from(batch, first_row, first_column),
              a.rows - first_row, a.columns - first_column) {
    constexpr uint32_t kOnes = 0x3f803f80u;  // two of bf16
    const int columns = a.columns - first_column;
    rows_.ask();
    if (a.bias != nullptr) {
      bias_.load(a.bias + first_column, columns);
    } else {
      bias_.fill(0);
    }
    if (a.gate != nullptr) {
      gate_.load(a.gate + batch * a.gate_batch_stride + first_column, columns);
    } else {
      gate_.fill(kOnes);
    }
  }

  __device__ void run(float (&sums)[kWidth / 2]) const {
    rows_.merge([&](float2 residual, int at) {
      const float2 bias = unpack_bf16(bias_.pairs[at / 4]), gate = unpack_bf16(gate_.pairs[at / 4]);
      return float2{fmaf(sums[at] + bias.x, gate.x, residual.x), fmaf(sums[at + 1] + bias.y, gate.y, residual.y)};
    });
  }

 private:
  MergedRows<kWidth, true> rows_;
  ColumnPairs<kWidth> bias_, gate_;
};

/// sums + bias; heads of q and k normed, and rotated by the row's angles.
template <int kWidth>
class HeadsEpilogue {
 public:
  __device__ HeadsEpilogue(const EpilogueArguments& a, uint32_t exchange, int batch, int first_row, int first_column)
      : a_(a),
        first_column_(first_column),
        rows_(exchange, a.out_from(batch, first_row, first_column), a.rows - first_row, a.columns - first_column),
        rotates_(a.cos != nullptr && first_column < 2 * a.head_columns) {
    if (rotates_) ask_angles(first_row);
    if (a.bias != nullptr) {
      bias_.load(a.bias + first_column, a.columns - first_column);
    } else {
      bias_.fill(0);
    }
  }

  __device__ void run(float (&sums)[kWidth / 2]) {
#pragma unroll
    for (int j = 0; j < kWidth / 8; ++j) {
      const float2 bias = unpack_bf16(bias_.pairs[j]);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        sums[4 * j + 2 * r] += bias.x;
        sums[4 * j + 2 * r + 1] += bias.y;
      }
    }
#pragma unroll
    for (int head = 0; head < kHeads; ++head) {
      if (is_normed(head)) norm(sums, head);
    }
    if (rotates_) rotate(sums);
#pragma unroll
    for (int part = 0; part < kHeads; ++part) {
      rows_.put(part, [&](int block, uint32_t(&words)[4]) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int at = part * (kHeadDim / 2) + 4 * block + 2 * i;
          words[i] = pack_bf16(sums[at], sums[at + 1]);
        }
      });
      __syncwarp();
      rows_.write(part, [](int) {});
      __syncwarp();
    }
  }

 private:
  static constexpr int kHeads = kWidth / kHeadDim, kBlocks = kHeadDim / 8;
  using Exchange = WarpExchange<kHeadDim>;
  static_assert(kHeadDim / 2 * sizeof(float) == kHeadDim * sizeof(bf16));  // angles of a row: as long as its head

  __device__ const bf16* norm_weight(int head) const {
    return first_column_ + head * kHeadDim < a_.head_columns ? a_.q_weight : a_.k_weight;
  }
  __device__ bool is_normed(int head) const {
    return first_column_ + head * kHeadDim < 2 * a_.head_columns && norm_weight(head) != nullptr;
  }

  __device__ void norm(float (&sums)[kWidth / 2], int head) const {
    ColumnPairs<kHeadDim> weight;
    weight.load(norm_weight(head), kHeadDim);
    float* of_head = sums + head * (kHeadDim / 2);
    float inverse[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float squares = 0.0f;
#pragma unroll
      for (int j = 0; j < kBlocks; ++j) {
        const float x = of_head[4 * j + 2 * r], y = of_head[4 * j + 2 * r + 1];
        squares = fmaf(x, x, fmaf(y, y, squares));
      }
      squares += __shfl_xor_sync(0xffffffffu, squares, 1);
      squares += __shfl_xor_sync(0xffffffffu, squares, 2);
      inverse[r] = rsqrtf(squares * (1.0f / kHeadDim) + a_.epsilon);
    }
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
      const float2 scale = unpack_bf16(weight.pairs[j]);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        of_head[4 * j + 2 * r] *= inverse[r] * scale.x;
        of_head[4 * j + 2 * r + 1] *= inverse[r] * scale.y;
      }
    }
  }

  /// The cosines of the warp's rows into the exchange, the sines into registers until those have left it.
  __device__ void ask_angles(int first_row) {
    const int64_t first = int64_t{first_row + Exchange::row(0)} * (kHeadDim / 2) + Exchange::column(0) / 2;
    const int rows = a_.rows - first_row - Exchange::row(0);
#pragma unroll
    for (int i = 0; i < Exchange::kSteps; ++i) {
      const int64_t at = first + Exchange::row_step(i) * (kHeadDim / 2) + Exchange::column_step(i) / 2;
      const bool exists = Exchange::row_step(i) < rows;
      copy_16(rows_.exchange().chunk(i), a_.cos + at, exists);
      sin_[i] = exists ? *reinterpret_cast<const uint4*>(a_.sin + at) : uint4{};
    }
  }
  /// What the exchange has of the angles of the lane's row r in a column block.
  __device__ float angle(int block, int r) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    return __uint_as_float(load_shared(rows_.exchange().word(lane / 4 + 8 * r, lane % 4 + 4 * block)));
  }
  __device__ void rotate(float (&sums)[kWidth / 2]) const {
    wait_copies();
    __syncwarp();
    float cos[2][kBlocks];
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
#pragma unroll
      for (int r = 0; r < 2; ++r) cos[r][j] = angle(j, r);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < Exchange::kSteps; ++i) store_shared_16(rows_.exchange().chunk(i), sin_[i]);
    __syncwarp();
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float c = cos[r][j], s = angle(j, r);
#pragma unroll
        for (int head = 0; head < kHeads; ++head) {
          if (first_column_ + head * kHeadDim >= 2 * a_.head_columns) continue;
          float& x = sums[head * (kHeadDim / 2) + 4 * j + 2 * r];
          float& y = sums[head * (kHeadDim / 2) + 4 * j + 2 * r + 1];
          const float turned = x * c - y * s;
          y = x * s + y * c;
          x = turned;
        }
      }
    }
    // Before the results come.
    __syncwarp();
  }

  const EpilogueArguments& a_;
  int first_column_;
  ResultRows<kWidth, true> rows_;
  bool rotates_;
  ColumnPairs<kWidth> bias_;
  uint4 sin_[Exchange::kSteps];
};

template <int kWidth, Kind kKind>
using Epilogue = std::conditional_t<kKind == Kind::kHeads, HeadsEpilogue<kWidth>, GatedEpilogue<kWidth>>;

}  // namespace chipmunk::cuda::sm90::linear
