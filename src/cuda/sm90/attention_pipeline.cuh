#pragma once

#include "cuda/sm90/attention_shape.h"
#include "cuda/sm90/ptx.cuh"
#include "cuda/sm90/shared_matrix.cuh"

namespace chipmunk::cuda::sm90 {

/// A place in a ring of slots, and the parity of the barriers' phase there.
template <int kSlots>
struct RingPosition {
  int slot = 0;
  uint32_t parity = 0;

  __device__ void advance() {
    if (++slot == kSlots) {
      slot = 0;
      parity ^= 1;
    }
  }
};

/// The shared memory of an attention kernel: matrices, and a pair of barriers for each slot: full, when its data is
/// there; empty, when every warp that computes is done with it.
template <class Shape>
struct AttentionPipeline {
  using QMatrix = SharedMatrix<Shape::kRows, Shape::kHeadDim>;
  using TileMatrix = SharedMatrix<Shape::kTileKeys, Shape::kHeadDim>;
  using Position = RingPosition<Shape::kStages>;

  uint32_t base;

  __device__ explicit AttentionPipeline(const void* shared)
      : base((shared_address(shared) + Shape::kAlignment - 1) / Shape::kAlignment * Shape::kAlignment) {}

  __device__ QMatrix q() const { return {base}; }
  __device__ TileMatrix keys(int slot) const { return {base + Shape::kKeysOffset + slot * Shape::kTileBytes}; }
  __device__ TileMatrix values(int slot) const { return {base + Shape::kValuesOffset + slot * Shape::kTileBytes}; }

  /// Every warpgroup brings its own rows of q.
  __device__ uint32_t q_full(int warpgroup) const { return barrier(4 * Shape::kStages + warpgroup); }
  __device__ uint32_t keys_full(int slot) const { return barrier(slot); }
  __device__ uint32_t keys_empty(int slot) const { return barrier(Shape::kStages + slot); }
  __device__ uint32_t values_full(int slot) const { return barrier(2 * Shape::kStages + slot); }
  __device__ uint32_t values_empty(int slot) const { return barrier(3 * Shape::kStages + slot); }

  /// By one thread, before a barrier of the block. tile_arrivals: how many threads announce a tile.
  __device__ void init(uint32_t tile_arrivals) const {
    constexpr uint32_t kWarps = Shape::kWarpgroups * 4;
    for (int warpgroup = 0; warpgroup < Shape::kWarpgroups; ++warpgroup) init_barrier(q_full(warpgroup), 1);
    for (int slot = 0; slot < Shape::kStages; ++slot) {
      init_barrier(keys_full(slot), tile_arrivals);
      init_barrier(keys_empty(slot), kWarps);
      init_barrier(values_full(slot), tile_arrivals);
      init_barrier(values_empty(slot), kWarps);
    }
    fence_barrier_init();
  }

 private:
  __device__ uint32_t barrier(int index) const { return base + Shape::kBarriersOffset + index * 8; }
};

}  // namespace chipmunk::cuda::sm90
