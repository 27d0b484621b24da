#pragma once

#include <cuda_bf16.h>

#include "cuda/sm90/attention_consumer.cuh"
#include "params.h"

namespace chipmunk::cuda::sm90 {

constexpr float kLog2E = 1.4426950408889634f;

/// The result of attention in device memory: rows of a head at strides, 16-byte aligned.
struct HeadRowsOut {
  __nv_bfloat16* data;
  HeadStrides strides;
  int heads, tokens;
};

/// Of a warpgroup's rows, the first of the calling thread's two; the other one is 8 further.
__device__ inline int thread_row() {
  return static_cast<int>(threadIdx.x) % 128 / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
}

/// The two rows of the result that a thread of a computing warpgroup holds a quarter of.
class OutRows {
 public:
  /// first_row: of the warpgroup; rows at or past end_row do not exist.
  __device__ OutRows(const HeadRowsOut& out, int batch, int head, int first_row, int end_row)
      : out_(out), head_(batch * out.heads + head), end_row_(end_row), lane_(static_cast<int>(threadIdx.x) % 32) {
    row_ = first_row + thread_row();
    head_offset_ = batch * out.strides.batch + head * out.strides.head;
  }

  __device__ bool exists(int r) const { return row_ + 8 * r < end_row_; }
  /// One thread of each row's four.
  __device__ bool is_writer(int r) const { return lane_ % 4 == 0 && exists(r); }
  /// Of a dense [batch, heads, tokens].
  __device__ int64_t lse_index(int r) const { return static_cast<int64_t>(head_) * out_.tokens + row_ + 8 * r; }

  /// Row r: out = scale * values. All lanes of the warp take part.
  template <int kHeadDim>
  __device__ void write(const float (&values)[kHeadDim / 2], int r, float scale) const {
    __nv_bfloat16* row = out_.data + head_offset_ + (row_ + 8 * r) * out_.strides.token;
#pragma unroll
    for (int block = 0; block < kHeadDim / 8; block += 4) {
      uint32_t words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = 4 * (block + i) + 2 * r;
        words[i] = scale == 0.0f ? 0u : pack_bf16(values[at] * scale, values[at + 1] * scale);
      }
      store(row, block, r, words);
    }
  }

  /// Row r: out = scale * values + known_scale * known, whose pairs of columns are in the order of values. What has a
  /// scale of 0 does not count, whatever its value; it is replaced.
  template <int kHeadDim>
  __device__ void write_sum(float (&values)[kHeadDim / 2], int r, float scale, uint32_t (&known)[kHeadDim / 8],
                            float known_scale) const {
    // Rare: a branch of the warp, in place of a choice for each value.
    if (__any_sync(0xffffffffu, scale == 0.0f || known_scale == 0.0f)) {
#pragma unroll
      for (int i = 0; i < kHeadDim / 8; ++i) {
        if (scale == 0.0f) values[4 * i + 2 * r] = values[4 * i + 2 * r + 1] = 0.0f;
        if (known_scale == 0.0f) known[i] = 0;
      }
    }
    __nv_bfloat16* row = out_.data + head_offset_ + (row_ + 8 * r) * out_.strides.token;
#pragma unroll
    for (int block = 0; block < kHeadDim / 8; block += 4) {
      uint32_t words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = 4 * (block + i) + 2 * r;
        const float2 old = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&known[block + i]));
        words[i] =
            pack_bf16(fmaf(old.x, known_scale, values[at] * scale), fmaf(old.y, known_scale, values[at + 1] * scale));
      }
      store(row, block, r, words);
    }
  }

 private:
  /// Four blocks of 8 columns, of which every lane has two: each lane stores one whole block.
  __device__ void store(__nv_bfloat16* row, int block, int r, uint32_t (&words)[4]) const {
    transpose_quad(words, lane_);
    if (!exists(r)) return;
    *reinterpret_cast<uint4*>(row + (block + lane_ % 4) * 8) = make_uint4(words[0], words[1], words[2], words[3]);
  }

  const HeadRowsOut& out_;
  int head_, row_, end_row_, lane_;
  int64_t head_offset_;
};

}  // namespace chipmunk::cuda::sm90
