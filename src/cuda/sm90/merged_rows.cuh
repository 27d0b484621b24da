#pragma once

#include <cuda_bf16.h>

#include "cuda/sm90/attention_consumer.cuh"
#include "cuda/sm90/warp_exchange.cuh"

namespace chipmunk::cuda::sm90 {

__device__ inline float2 unpack_bf16(uint32_t pair) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&pair));
}

/// Rows of a matrix in device memory, from a first row and column on.
struct RowsFrom {
  __nv_bfloat16* data;
  int64_t stride;
};

/// A warp's 16 rows of kWidth columns of a product's results, merged with what is in memory in their place, a part
/// after the other through an exchange.
template <int kWidth>
class MergedRows {
  static constexpr int kPart = kWidth < 128 ? kWidth : 128;  // columns
  using Exchange = WarpExchange<kPart>;
  static constexpr int kParts = kWidth / kPart, kSteps = Exchange::kSteps;
  static_assert(kWidth % kPart == 0);

 public:
  /// count: so many rows exist from the first one on.
  __device__ MergedRows(uint32_t exchange, const RowsFrom& rows, int count)
      : exchange_(exchange),
        rows_{rows.data + Exchange::row(0) * rows.stride + Exchange::column(0), rows.stride},
        count_(count - Exchange::row(0)) {}

  /// Asks for the first part of what is there, long before merge().
  __device__ void ask() const {
#pragma unroll
    for (int i = 0; i < kSteps; ++i) copy_16(exchange_.chunk(i), chunk(0, i), exists(i));
  }

  /// result(known, at): two columns of the result, of which `known` is in memory, and which products have in sums[at]
  /// and behind it.
  template <class Result>
  __device__ void merge(const Result& result) const {
    wait_copies();
    uint4 next[kSteps];
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      const bool is_last = part + 1 == kParts;
      __syncwarp();
      if (!is_last) {
#pragma unroll
        for (int i = 0; i < kSteps; ++i) {
          next[i] = exists(i) ? *reinterpret_cast<const uint4*>(chunk(part + 1, i)) : uint4{};
        }
      }
      // A thread has two columns of each of its two rows, 8 apart; then the same of the next block of 8 columns.
#pragma unroll
      for (int block = 0; block < kPart / 8; block += 2) {
        uint32_t words[4];
        load_matrices(exchange_.matrices(block), words);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float2 merged = result(unpack_bf16(words[i]), part * (kPart / 2) + 4 * block + 2 * i);
          words[i] = pack_bf16(merged.x, merged.y);
        }
        store_matrices(exchange_.matrices(block), words);
      }
      __syncwarp();
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        const uint4 merged = load_shared_16(exchange_.chunk(i));
        if (!is_last) store_shared_16(exchange_.chunk(i), next[i]);
        if (exists(i)) *reinterpret_cast<uint4*>(chunk(part, i)) = merged;
      }
    }
    // Before the next ones come.
    __syncwarp();
  }

 private:
  /// Whether the lane's row of a step exists.
  __device__ bool exists(int step) const { return Exchange::row_step(step) < count_; }
  /// Where the lane's chunk of a part's step lies.
  __device__ __nv_bfloat16* chunk(int part, int step) const {
    return rows_.data + Exchange::row_step(step) * rows_.stride + part * kPart + Exchange::column_step(step);
  }

  Exchange exchange_;
  RowsFrom rows_;  // of the lane's first chunk
  int count_;      // of rows from there on
};

}  // namespace chipmunk::cuda::sm90
