#pragma once

#include "cuda/sm90/attention_pipeline.cuh"

namespace chipmunk::cuda::sm90 {

/// What the result of an item is joined with, in shared memory: its rows of the residual, and two logarithms of each.
/// They take a stage of the ring, after the item's tiles: loads by the threads that need them would come behind all
/// that is being gathered.
template <class Shape>
struct KnownRows {
  static constexpr int kHalfRows = Shape::kRows / 2;
  using Half = SharedMatrix<kHalfRows, Shape::kHeadDim>;
  static_assert(Half::kBytes + 2 * Shape::kRows * static_cast<int>(sizeof(float)) <= Shape::kTileBytes);

  Half first, second;

  __device__ KnownRows(const AttentionPipeline<Shape>& pipeline, int slot)
      : first{pipeline.values(slot).address}, second{pipeline.keys(slot).address} {}

  __device__ uint32_t lse_all(int row) const { return first.address + Half::kBytes + row * 4; }
  __device__ uint32_t lse_rest(int row) const { return lse_all(Shape::kRows + row); }

  /// Of rows `row` and row + 8, the pairs of columns that the thread with a result's elements there has, in their
  /// order.
  __device__ void load(int row, int lane, uint32_t (&pairs)[2][Shape::kHeadDim / 8]) const {
    const uint32_t half = row < kHalfRows ? first.address : second.address;
    const uint32_t start = half + row % kHalfRows * kSwizzleRow + lane % 4 * 4;
#pragma unroll
    for (int i = 0; i < Shape::kHeadDim / 8; ++i) {
      const uint32_t pair = start + i / 8 * Half::kBlockBytes + ((i ^ row) & 7) * 16;
      pairs[0][i] = load_shared(pair);
      pairs[1][i] = load_shared(pair + kSwizzlePattern);
    }
  }
};

}  // namespace chipmunk::cuda::sm90
