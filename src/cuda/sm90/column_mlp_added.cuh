#pragma once

#include <cuda_bf16.h>

#include "cuda/float_types.cuh"
#include "cuda/sm90/column_mlp_producer.cuh"
#include "cuda/sm90/warp_exchange.cuh"

/// What becomes of the sums of the sparse MLP's second kernel (docs/kernels/column_mlp.md).
namespace chipmunk::cuda::sm90::mlp {

/// Rows of a matrix in device memory, from a first row and column on.
struct RowsFrom {
  __nv_bfloat16* data;
  int64_t stride;
  int count;  // of those that exist

  __device__ __nv_bfloat16* row(int i) const { return data + i * stride; }
};

/// Of what a warp adds to of a tile, from one of its tokens and channels on.
__device__ inline RowsFrom out_rows(const Arguments& a, const AddTiles& tile, int warpgroup, int row, int column) {
  const int token = a.first_row(tile.block) + warpgroup * kHalfTokens + warp_index() % 4 * Exchange::kRows + row;
  const int64_t stride = a.out.strides.token;
  return {a.out.data + a.batch(tile.block) * a.out.strides.batch + token * stride + tile.first_channel + column, stride,
          a.end_row(tile.block) - token};
}
/// words += sums of two blocks of 8 columns: products have them in sums[first] and what follows, two columns of each of
/// a lane's two rows, 8 apart, then the same of the next block.
template <int kCount>
__device__ void add_sums(uint32_t (&words)[4], const float (&sums)[kCount], int first) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 known = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&words[i]));
    words[i] = pack_bf16(known.x + sums[first + 2 * i], known.y + sums[first + 2 * i + 1]);
  }
}

/// What a warp adds to: of each whole tile, 16 tokens and all channels, in two halves. New outputs wait, those of the
/// second half in the exchange and of the first in registers, and go to memory while the next tile's products run, a
/// row of each lane at a time.
class AddedRows {
  static constexpr int kRowsOfLane = Exchange::kSteps / Exchange::kRowSteps;  // of a half

 public:
  __device__ AddedRows(const Arguments& a, const Exchange& exchange, int warpgroup)
      : a_(a), exchange_(exchange), warpgroup_(warpgroup) {}

  /// Asks for the first half of a tile's outputs as they were, into the exchange. No row waits any more.
  __device__ void ask_first_half(const AddTiles& tile) const { ask(tile, 0); }
  /// Takes it, and asks for the second half.
  __device__ void ask_second_half(const AddTiles& tile) {
    wait_copies();
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kMatrices; ++i) load_matrices(exchange_.matrices(2 * i), first_half_[i]);
    __syncwarp();
    ask(tile, kExchangeColumns);
  }
  /// Adds sums to both halves.
  __device__ void take(const AddTiles& tile, const float (&sums)[kTileWidth / 2]) {
#pragma unroll
    for (int i = 0; i < kMatrices; ++i) add_sums(first_half_[i], sums, 8 * i);
    wait_copies();
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kMatrices; ++i) {
      uint32_t words[4];
      load_matrices(exchange_.matrices(2 * i), words);
      add_sums(words, sums, kExchangeColumns / 2 + 8 * i);
      store_matrices(exchange_.matrices(2 * i), words);
    }
    __syncwarp();
    rows_ = lane_rows(tile);
    next_ = 0;
  }

  /// Writes the next row, if one waits.
  __device__ void write_row() {
    if (next_ == kRows) return;
    if (next_ == kRowsOfLane) exchange_.put(first_half_);
    const int step = next_ % kRowsOfLane * Exchange::kRowSteps, row = Exchange::row_step(step);
    __nv_bfloat16* to = rows_.row(row) + (next_ < kRowsOfLane ? kExchangeColumns : 0);
#pragma unroll
    for (int i = 0; i < Exchange::kRowSteps; ++i) {
      const uint4 words = load_shared_16(exchange_.chunk(step) + Exchange::column_step(i) * 2);
      if (row < rows_.count) *reinterpret_cast<uint4*>(to + Exchange::column_step(i)) = words;
    }
    ++next_;
  }
  /// Writes all that wait.
  __device__ void write_rows() {
#pragma unroll 1
    while (next_ < kRows) write_row();
    __syncwarp();
  }

 private:
  static constexpr int kMatrices = Exchange::kMatrices;
  static_assert(kTileWidth == 2 * kExchangeColumns);

  /// From the lane's first row and column on.
  __device__ RowsFrom lane_rows(const AddTiles& tile) const {
    return out_rows(a_, tile, warpgroup_, Exchange::row(0), Exchange::column(0));
  }
  __device__ void ask(const AddTiles& tile, int first_column) const {
    const RowsFrom from = lane_rows(tile);
#pragma unroll
    for (int i = 0; i < Exchange::kSteps; ++i) {
      const int row = Exchange::row_step(i);
      copy_16(exchange_.chunk(i), from.row(row) + first_column + Exchange::column_step(i), row < from.count);
    }
  }

  const Arguments& a_;
  Exchange exchange_;
  int warpgroup_;
  uint32_t first_half_[kMatrices][4];
  // Of the tile whose rows wait: the next one of a lane's.
  static constexpr int kRows = 2 * kRowsOfLane;
  int next_ = kRows;
  RowsFrom rows_;
};

/// The same of a part of a tile, 16 tokens and kQuarterWidth channels, which do not wait.
class AddedPart {
  using Exchange = WarpExchange<kQuarterWidth>;

 public:
  __device__ AddedPart(const Arguments& a, const Pipeline& pipeline, const AddTiles& tile, int warpgroup)
      : exchange_(pipeline.exchange()), rows_(out_rows(a, tile, warpgroup, Exchange::row(0), Exchange::column(0))) {}

  /// Asks for the outputs as they were.
  __device__ void ask() const {
#pragma unroll
    for (int i = 0; i < Exchange::kSteps; ++i) copy_16(exchange_.chunk(i), chunk(i), exists(i));
  }
  /// out += sums.
  __device__ void add(const float (&sums)[kQuarterWidth / 2]) const {
    wait_copies();
    __syncwarp();
#pragma unroll
    for (int block = 0; block < kQuarterWidth / 8; block += 2) {
      uint32_t words[4];
      load_matrices(exchange_.matrices(block), words);
      add_sums(words, sums, 4 * block);
      store_matrices(exchange_.matrices(block), words);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < Exchange::kSteps; ++i) {
      const uint4 words = load_shared_16(exchange_.chunk(i));
      if (exists(i)) *reinterpret_cast<uint4*>(chunk(i)) = words;
    }
    // Before the next ones come.
    __syncwarp();
  }

 private:
  // Of a step of the exchange.
  __device__ bool exists(int step) const { return Exchange::row_step(step) < rows_.count; }
  __device__ __nv_bfloat16* chunk(int step) const {
    return rows_.row(Exchange::row_step(step)) + Exchange::column_step(step);
  }

  Exchange exchange_;
  RowsFrom rows_;  // from the lane's first chunk on
};

}  // namespace chipmunk::cuda::sm90::mlp
