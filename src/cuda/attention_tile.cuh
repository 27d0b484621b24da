#pragma once

#include "cuda/mma.cuh"
#include "params.h"

/// What the portable attention kernels share: rows of heads in shared memory and the scores of a tile.
namespace chipmunk::cuda {

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;
/// Keys that a tile of scores covers.
constexpr int kTileKeys = 64;
/// Query rows of a warp.
constexpr int kWarpRows = 16;
constexpr int kScoreTiles = kTileKeys / 8;

/// Head rows in device memory: row i at data + i * stride, head_dim values each.
struct HeadRows {
  const bf16* data;
  int64_t stride;
  int head_dim;
};

/// Brings kRows rows into a tile, row i of it from row_of(i), or zeros where that is negative or past head_dim.
/// kAligned: every row starts at 16 bytes and head_dim is a multiple of kChunk; the copies are then under way when this
/// returns.
template <int kDim, int kRows, int kThreads, bool kAligned, class RowOf>
__device__ void load_rows(const Tile<kDim>& tile, const HeadRows& rows, RowOf row_of) {
  constexpr int kChunks = Tile<kDim>::kChunks;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kChunks; i += kThreads) {
    const int row = i / kChunks, chunk = i % kChunks;
    const int64_t source = row_of(row);
    const bool valid = source >= 0 && chunk * kChunk < rows.head_dim;
    const bf16* from = valid ? rows.data + source * rows.stride + chunk * kChunk : rows.data;
    if constexpr (kAligned) {
      copy_async_16(tile.chunk(row, chunk), from, valid);
    } else {
      Vec<bf16, kChunk> values{};
#pragma unroll
      for (int e = 0; e < kChunk; ++e) {
        if (valid && chunk * kChunk + e < rows.head_dim) values.values[e] = from[e];
      }
      store_vec(tile.chunk(row, chunk), values);
    }
  }
}

/// scores[16, kTileKeys] = q k^T for the warp's rows of q, from first_row on.
template <int kDim>
__device__ void compute_scores(float (&scores)[kScoreTiles][4], const Tile<kDim>& q, int first_row, const Tile<kDim>& k,
                               int lane) {
#pragma unroll
  for (int n = 0; n < kScoreTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) scores[n][i] = 0.0f;
  }
#pragma unroll
  for (int depth = 0; depth < kDim / 16; ++depth) {
    uint32_t a[4];
    q.load_block(a, first_row, depth * 2, lane);
#pragma unroll
    for (int n = 0; n < kScoreTiles; n += 2) {
      uint32_t b[4];
      k.load_block(b, n * 8, depth * 2, lane);
      multiply_add(scores[n], a, b[0], b[2]);
      multiply_add(scores[n + 1], a, b[1], b[3]);
    }
  }
}

/// Which keys of a tile a row may see, and what is added to its scores.
struct ScoreMask {
  const float* relative_bias;  // of the head, or null
  int64_t bias_origin;         // its entry for row 0 and key 0: N - 1
  int64_t limit;               // keys at or past it are invisible to every row
  int64_t causal_offset;       // key j is visible to row i where j <= i + this; M for no such rule
};

/// Turns scores into exponents of 2, -inf where masked. rows: of the accumulator's two rows.
__device__ inline void mask_scores(float (&scores)[kScoreTiles][4], const ScoreMask& mask, const int64_t (&rows)[2],
                                   int64_t first_key, float scale_log2, int lane) {
#pragma unroll
  for (int n = 0; n < kScoreTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t row = rows[i / 2];
      const int64_t key = first_key + n * 8 + lane % 4 * 2 + i % 2;
      const bool visible = key < mask.limit && key <= row + mask.causal_offset;
      float score = scores[n][i] * scale_log2;
      // Rows past the end, of which nothing is kept, have no entries.
      if (visible && mask.relative_bias != nullptr && row <= mask.bias_origin) {
        score = fmaf(mask.relative_bias[key - row + mask.bias_origin], kLog2E, score);
      }
      scores[n][i] = visible ? score : -INFINITY;
    }
  }
}

}  // namespace chipmunk::cuda
