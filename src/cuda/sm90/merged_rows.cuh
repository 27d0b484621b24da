#pragma once

#include <cuda_bf16.h>

#include "cuda/sm90/attention_consumer.cuh"
#include "cuda/sm90/warp_exchange.cuh"

namespace chipmunk::cuda::sm90 {

__device__ inline float2 unpack_bf16(uint32_t pair) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&pair));
}

/// Rows of a matrix in device memory, from a first row and column on.
template <class Element>
struct RowsFrom {
  Element* data;
  int64_t stride;
};

/// A warp's 16 rows of kWidth columns of a product's results on their way to memory, a part after the other through an
/// exchange. kCut: whether columns may be missing.
template <int kWidth, bool kCut>
class ResultRows {
 public:
  static constexpr int kPart = kWidth < 128 ? kWidth : 128;  // columns
  using Exchange = WarpExchange<kPart>;
  static constexpr int kParts = (kWidth + kPart - 1) / kPart, kSteps = Exchange::kSteps;

  /// rows, columns: so many exist from the first ones on.
  __device__ ResultRows(uint32_t exchange, RowsFrom<__nv_bfloat16> out, int rows, int columns)
      : exchange_(exchange),
        out_(chunks_of(out)),
        rows_(rows - Exchange::row(0)),
        columns_((columns < kWidth ? columns : kWidth) - Exchange::column(0)) {}

  __device__ const Exchange& exchange() const { return exchange_; }
  /// Whether the lane's chunk in a step of a part exists.
  __device__ bool exists(int part, int step) const {
    const int column = part * kPart + Exchange::column_step(step);
    return Exchange::row_step(step) < rows_ && column < (kCut ? columns_ : kWidth);
  }
  /// The same rows of another matrix, from the lane's first chunk on; and where its chunk in a step lies.
  template <class Element>
  __device__ static RowsFrom<Element> chunks_of(const RowsFrom<Element>& rows) {
    return {rows.data + Exchange::row(0) * rows.stride + Exchange::column(0), rows.stride};
  }
  template <class Element>
  __device__ static Element* chunk(const RowsFrom<Element>& rows, int part, int step) {
    return rows.data + Exchange::row_step(step) * rows.stride + part * kPart + Exchange::column_step(step);
  }

  /// Column blocks of a part, each of 8.
  __device__ static constexpr int blocks(int part) {
    return (kWidth - part * kPart < kPart ? kWidth - part * kPart : kPart) / 8;
  }
  /// Puts a part into the exchange. words(block, four) fills in what the lane has of column blocks `block` and block +
  /// 1: two columns of each of its two rows, 8 apart; then the same of the next block.
  template <class Words>
  __device__ void put(int part, const Words& words) const {
#pragma unroll
    for (int block = 0; block < kPart / 8; block += 2) {
      if (block >= blocks(part)) continue;
      uint32_t four[4];
      words(block, four);
      store_matrices(exchange_.matrices(block), four);
    }
  }
  /// Writes a part that all of the warp have put; then(step) follows each chunk.
  template <class Then>
  __device__ void write(int part, const Then& then) const {
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const uint4 result = load_shared_16(exchange_.chunk(i));
      then(i);
      if (exists(part, i)) *reinterpret_cast<uint4*>(chunk(out_, part, i)) = result;
    }
  }

 private:
  static_assert(kCut || kWidth % 64 == 0);  // of a step's columns, all exist

  Exchange exchange_;
  RowsFrom<__nv_bfloat16> out_;  // of the lane's first chunk
  int rows_, columns_;           // from there on
};

/// Results that are merged with what is known of the same rows.
template <int kWidth, bool kCut>
class MergedRows : public ResultRows<kWidth, kCut> {
  using Base = ResultRows<kWidth, kCut>;
  using Base::chunk, Base::chunks_of, Base::exists, Base::kParts, Base::kSteps;

 public:
  /// known.data may be null: zeros.
  __device__ MergedRows(uint32_t exchange, RowsFrom<const __nv_bfloat16> known, RowsFrom<__nv_bfloat16> out, int rows,
                        int columns)
      : Base(exchange, out, rows, columns), known_(chunks_of(known)), is_known_(known.data != nullptr) {}

  /// Asks for the first part of what is known, long before merge().
  __device__ void ask() const {
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      copy_16(this->exchange().chunk(i), chunk(known_, 0, i), is_known_ && exists(0, i));
    }
  }

  /// result(known, at): two columns of the result, of which `known` is known, and which products have in sums[at] and
  /// behind it.
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
          const bool given = is_known_ && exists(part + 1, i);
          next[i] = given ? *reinterpret_cast<const uint4*>(chunk(known_, part + 1, i)) : uint4{};
        }
      }
      this->put(part, [&](int block, uint32_t(&words)[4]) {
        load_matrices(this->exchange().matrices(block), words);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float2 merged = result(unpack_bf16(words[i]), part * (Base::kPart / 2) + 4 * block + 2 * i);
          words[i] = pack_bf16(merged.x, merged.y);
        }
      });
      __syncwarp();
      this->write(part, [&](int i) {
        if (!is_last) store_shared_16(this->exchange().chunk(i), next[i]);
      });
    }
    // Before the next ones come.
    __syncwarp();
  }

 private:
  RowsFrom<const __nv_bfloat16> known_;  // of the lane's first chunk
  bool is_known_;
};

}  // namespace chipmunk::cuda::sm90
