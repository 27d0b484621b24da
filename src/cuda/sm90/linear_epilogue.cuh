#pragma once

#include "cuda/float_types.cuh"
#include "cuda/sm90/attention_consumer.cuh"
#include "cuda/sm90/linear_plan.h"

/// What becomes of a linear's sums in a warpgroup's registers until they are in device memory (docs/kernels/linear.md).
namespace chipmunk::cuda::sm90::linear {

constexpr int kHeadDim = 128;

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
};

/// A warpgroup's 64 rows of a unit, kWidth columns of them: sums[4 j + 2 r + i] is what the calling thread has of its
/// row r (of two, 8 apart) in column first_column + 8 j + 2 (lane % 4) + i.
template <int kWidth, Kind kKind>
class Epilogue {
 public:
  __device__ Epilogue(const EpilogueArguments& a, int batch, int first_row, int first_column)
      : a_(a), batch_(batch), first_column_(first_column), lane_(static_cast<int>(threadIdx.x) % 32) {
    row_ = first_row + static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane_ / 4;
  }

  /// Asks for operands while the last products are under way.
  __device__ void load() {
    if constexpr (kKind == Kind::kHeads) load_angles(0);
    if constexpr (kKind == Kind::kGated) {
#pragma unroll
      for (int r = 0; r < kResidualRows; ++r) load_residual(r);
    }
    if constexpr (kLoadsBias) load_bias();
  }

  __device__ void run(float (&sums)[kWidth / 2]) {
    if constexpr (!kLoadsBias) load_bias();
    uint32_t gate[kBlocks];
    if constexpr (kKind == Kind::kGated) {
      const bf16* row = a_.gate == nullptr ? nullptr : a_.gate + batch_ * a_.gate_batch_stride;
#pragma unroll
      for (int j = 0; j < kBlocks; ++j) gate[j] = column_pair(row, j);
    }
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
      const float2 bias = floats(bias_[j]);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        sums[4 * j + 2 * r] += bias.x;
        sums[4 * j + 2 * r + 1] += bias.y;
      }
    }
    if constexpr (kKind == Kind::kGated) {
      if (a_.gate != nullptr) {
#pragma unroll
        for (int j = 0; j < kBlocks; ++j) {
          const float2 factor = floats(gate[j]);
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            sums[4 * j + 2 * r] *= factor.x;
            sums[4 * j + 2 * r + 1] *= factor.y;
          }
        }
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if constexpr (kKind == Kind::kHeads) {
        sort_angles();
#pragma unroll
        for (int first = 0; first < kWidth; first += kHeadDim) {
          if (first_column_ + first < 2 * a_.head_columns) norm_and_rotate(sums, first, r);
        }
        // The second row's arrive while the first one is stored.
        if (r == 0) load_angles(1);
      }
      if (kKind == Kind::kGated && r >= kResidualRows) load_residual(r);
      store(sums, r);
    }
  }

 private:
  static constexpr int kBlocks = kWidth / 8;  // of eight columns; of each, a thread has two
  static constexpr int kQuads = (kBlocks + 3) / 4;
  /// Rows of the residual that there are registers for before the sums are complete.
  static constexpr int kResidualRows = kWidth > 208 ? 1 : 2;
  /// Whether there are registers for the bias before the sums are complete, besides the residual's.
  static constexpr bool kLoadsBias = kKind != Kind::kGated;

  __device__ bool exists(int r) const { return row_ + 8 * r < a_.rows; }
  __device__ bool has_column(int block) const { return block < kBlocks && first_column_ + block * 8 < a_.columns; }
  __device__ static float2 floats(uint32_t pair) {
    return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&pair));
  }
  /// What a row of columns has for the thread's two of a block; zeros where it is null.
  __device__ uint32_t column_pair(const bf16* row, int block) const {
    if (row == nullptr || !has_column(block)) return 0;
    return *reinterpret_cast<const uint32_t*>(row + first_column_ + block * 8 + lane_ % 4 * 2);
  }

  __device__ void load_bias() {
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) bias_[j] = column_pair(a_.bias, j);
  }
  __device__ void load_residual(int r) {
    const bf16* row = a_.residual + batch_ * a_.residual_batch_stride + (row_ + 8 * r) * a_.residual_row_stride;
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      const int mine = 4 * i + lane_ % 4;
      residual_[r % kResidualRows][i] = a_.residual != nullptr && is_stored(mine, r)
                                            ? *reinterpret_cast<const uint4*>(row + first_column_ + mine * 8)
                                            : uint4{};
    }
  }

  /// Four neighbouring lanes share a row's angles as they share a head's columns.
  __device__ void load_angles(int r) {
    const bool given = a_.cos != nullptr && exists(r);
    const int64_t first = int64_t{row_ + 8 * r} * (kHeadDim / 2) + lane_ % 4 * 4;
#pragma unroll
    for (int i = 0; i < kHeadDim / 32; ++i) {
      cos_[i] = given ? *reinterpret_cast<const uint4*>(a_.cos + first + 16 * i) : uint4{};
      sin_[i] = given ? *reinterpret_cast<const uint4*>(a_.sin + first + 16 * i) : uint4{};
    }
    rotates_ = a_.cos != nullptr;
  }
  /// Brings the angles into the order of the sums.
  __device__ void sort_angles() {
#pragma unroll
    for (int i = 0; i < kHeadDim / 32; ++i) {
      uint32_t cos[4] = {cos_[i].x, cos_[i].y, cos_[i].z, cos_[i].w};
      uint32_t sin[4] = {sin_[i].x, sin_[i].y, sin_[i].z, sin_[i].w};
      transpose_quad(cos, lane_);
      transpose_quad(sin, lane_);
      cos_[i] = make_uint4(cos[0], cos[1], cos[2], cos[3]);
      sin_[i] = make_uint4(sin[0], sin[1], sin[2], sin[3]);
    }
  }

  /// Row r of the head whose columns begin `first` after the unit's.
  __device__ void norm_and_rotate(float (&sums)[kWidth / 2], int first, int r) const {
    const bf16* weight = first_column_ + first < a_.head_columns ? a_.q_weight : a_.k_weight;
    const int at = first / 2 + 2 * r;
    if (weight != nullptr) {
      float squares = 0.0f;
#pragma unroll
      for (int j = 0; j < kHeadDim / 8; ++j) {
        const float x = sums[at + 4 * j], y = sums[at + 4 * j + 1];
        squares = fmaf(x, x, fmaf(y, y, squares));
      }
      squares += __shfl_xor_sync(0xffffffffu, squares, 1);
      squares += __shfl_xor_sync(0xffffffffu, squares, 2);
      const float inverse = rsqrtf(squares * (1.0f / kHeadDim) + a_.epsilon);
#pragma unroll
      for (int j = 0; j < kHeadDim / 8; ++j) {
        const float2 scale = floats(*reinterpret_cast<const uint32_t*>(weight + 8 * j + lane_ % 4 * 2));
        sums[at + 4 * j] *= inverse * scale.x;
        sums[at + 4 * j + 1] *= inverse * scale.y;
      }
    }
    if (!rotates_) return;
#pragma unroll
    for (int i = 0; i < kHeadDim / 32; ++i) {
      uint32_t cos[4] = {cos_[i].x, cos_[i].y, cos_[i].z, cos_[i].w};
      uint32_t sin[4] = {sin_[i].x, sin_[i].y, sin_[i].z, sin_[i].w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float c = __uint_as_float(cos[j]), s = __uint_as_float(sin[j]);
        float& x = sums[at + 4 * (4 * i + j)];
        float& y = sums[at + 4 * (4 * i + j) + 1];
        const float turned = x * c - y * s;
        y = x * s + y * c;
        x = turned;
      }
    }
  }

  /// Row r, with the residual added. Of four blocks of columns, in which a thread has a pair each, it gets one whole.
  __device__ void store(const float (&sums)[kWidth / 2], int r) const {
    bf16* out = a_.out + batch_ * a_.out_batch_stride + (row_ + 8 * r) * a_.out_row_stride + first_column_;
#pragma unroll
    for (int quad = 0; quad < kQuads; ++quad) {
      uint32_t words[4] = {};
      uint32_t old[4] = {};
      if constexpr (kKind == Kind::kGated) {
        old[0] = residual_[r % kResidualRows][quad].x;
        old[1] = residual_[r % kResidualRows][quad].y;
        old[2] = residual_[r % kResidualRows][quad].z;
        old[3] = residual_[r % kResidualRows][quad].w;
        transpose_quad(old, lane_);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (4 * quad + i >= kBlocks) continue;
        const int at = 4 * (4 * quad + i) + 2 * r;
        const float2 before = kKind == Kind::kGated ? floats(old[i]) : float2{};
        words[i] = pack_bf16(before.x + sums[at], before.y + sums[at + 1]);
      }
      transpose_quad(words, lane_);
      const int mine = 4 * quad + lane_ % 4;
      if (is_stored(mine, r)) {
        *reinterpret_cast<uint4*>(out + mine * 8) = make_uint4(words[0], words[1], words[2], words[3]);
      }
    }
  }
  __device__ bool is_stored(int block, int r) const { return has_column(block) && exists(r); }

  const EpilogueArguments& a_;
  int batch_, first_column_, lane_, row_;
  uint32_t bias_[kBlocks];
  uint4 residual_[kResidualRows][kQuads];
  uint4 cos_[kHeadDim / 32], sin_[kHeadDim / 32];
  bool rotates_ = false;
};

}  // namespace chipmunk::cuda::sm90::linear
