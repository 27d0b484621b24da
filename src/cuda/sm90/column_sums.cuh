#pragma once

#include "cuda/sm90/attention_pipeline.cuh"

namespace chipmunk::cuda::sm90 {

/// Column sums on the side of attention: every computing warp adds up its 16 rows of a tile and leaves the sums in
/// shared memory; warps of the producer's warpgroup, which have nothing else to do, add up the warps' and write them
/// out. A slot has a tile of all warpgroups, or one of each.
template <class Shape>
struct ColumnSumRing {
  static constexpr int kSlots = 2;
  static constexpr int kWarps = Shape::kWarpgroups * 4;
  static constexpr int kReducerThreads = 96;  // three warps
  static constexpr int kSlotBytes = kWarps * Shape::kTileKeys * 4;
  static constexpr int kOffset = (Shape::kEnd + 15) / 16 * 16;
  static constexpr int kBarriersOffset = kOffset + kSlots * kSlotBytes;
  static constexpr size_t kSharedBytes = kBarriersOffset + 2 * kSlots * 8 + Shape::kAlignment;

  uint32_t base;          // of the pipeline
  unsigned char* memory;  // the same address as a pointer

  __device__ uint32_t full(int slot) const { return base + kBarriersOffset + slot * 8; }
  __device__ uint32_t empty(int slot) const { return base + kBarriersOffset + (kSlots + slot) * 8; }
  __device__ float* sums(int slot, int warp) const {
    return reinterpret_cast<float*>(memory + kOffset + slot * kSlotBytes) + warp * Shape::kTileKeys;
  }

  /// By one thread, before a barrier of the block.
  __device__ void init() const {
    for (int slot = 0; slot < kSlots; ++slot) {
      init_barrier(full(slot), kWarps * 32);
      init_barrier(empty(slot), kReducerThreads);
    }
    fence_barrier_init();
  }
};

/// The computing warps' side, as a hook of AttentionConsumer.
template <class Shape>
struct ColumnSumHook {
  using Ring = ColumnSumRing<Shape>;
  static constexpr int kValues = Shape::kTileKeys / 4;  // of a thread's two rows together
  static_assert(kValues % 8 == 0);
  static constexpr float kLargestExponent = 127.0f;

  const Ring& ring;
  RingPosition<Ring::kSlots>& at;
  int warp, lane;
  // -lse of the step before, in exponents of 2, of the thread's two rows; -inf where a row does not count.
  float shift[2];

  template <class Base>
  __device__ void operator()(const float (&probabilities)[Shape::kTileKeys / 2], Base base) {
    float factors[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float row_base = base(r);
      const bool counts = row_base != -INFINITY && shift[r] != -INFINITY;
      // Finite, or a probability of 0 would make NaN of it; but a NaN stays one, as it would not in fminf.
      const float exponent = row_base + shift[r];
      factors[r] = counts ? exp2f(exponent > kLargestExponent ? kLargestExponent : exponent) : 0.0f;
    }
    // Eight lanes hold the same columns: in each round a lane gives half of its columns away and takes the other half's
    // sums, so that at the end every lane has the complete sums of an eighth.
    float half[kValues / 2], quarter[kValues / 4], eighth[kValues / 8];
    const auto column = [&](int i) {
      return fmaf(probabilities[i / 2 * 4 + i % 2], factors[0], probabilities[i / 2 * 4 + 2 + i % 2] * factors[1]);
    };
#pragma unroll
    for (int i = 0; i < kValues / 2; ++i) half[i] = exchange(column(i), column(i + kValues / 2), 16);
#pragma unroll
    for (int i = 0; i < kValues / 4; ++i) quarter[i] = exchange(half[i], half[i + kValues / 4], 8);
#pragma unroll
    for (int i = 0; i < kValues / 8; ++i) eighth[i] = exchange(quarter[i], quarter[i + kValues / 8], 4);

    wait(ring.empty(at.slot), at.parity ^ 1);
    float* sums = ring.sums(at.slot, warp);
    const int first = ((lane & 16) / 16 * 4 + (lane & 8) / 8 * 2 + (lane & 4) / 4) * (kValues / 8);
#pragma unroll
    for (int i = 0; i < kValues / 8; ++i) {
      const int value = first + i;
      sums[value / 2 * 8 + lane % 4 * 2 + value % 2] = eighth[i];
    }
    leave();
  }

  /// In place of a tile that this warpgroup does not have, where the others have one.
  __device__ void pass() {
    wait(ring.empty(at.slot), at.parity ^ 1);
    leave();
  }

 private:
  __device__ void leave() {
    arrive(ring.full(at.slot));
    at.advance();
  }

  /// The lane whose bit `mask` is 0 keeps `low`, the other `high`; each receives what its partner has of the same.
  __device__ float exchange(float low, float high, int mask) const {
    const bool upper = (lane & mask) != 0;
    const float received = __shfl_xor_sync(0xffffffffu, upper ? low : high, mask);
    return (upper ? high : low) + received;
  }
};

/// The reducer's side: row = sums of `keys` columns, then zeros up to all_keys. kTiles: how many tiles a slot has, of
/// each of which as many warps have sums: one of all warps, or one of each warpgroup's.
template <int kTiles, class Shape>
__device__ void reduce_column_sums(const ColumnSumRing<Shape>& ring, RingPosition<ColumnSumRing<Shape>::kSlots>& at,
                                   int thread, float* row, int keys, int all_keys) {
  using Ring = ColumnSumRing<Shape>;
  constexpr int kColumns = kTiles * Shape::kTileKeys, kWarps = Ring::kWarps / kTiles;
  int first = 0;
  for (; first < keys; first += kColumns) {
    wait(ring.full(at.slot), at.parity);
    for (int column = thread; column < kColumns; column += Ring::kReducerThreads) {
      const int first_warp = column / Shape::kTileKeys * kWarps;
      float sum = 0.0f;
#pragma unroll
      for (int warp = 0; warp < kWarps; ++warp) sum += ring.sums(at.slot, first_warp + warp)[column % Shape::kTileKeys];
      // Past the keys there are probabilities of 0, but of rows whose factor may be NaN, or nothing at all.
      if (first + column < all_keys) row[first + column] = first + column < keys ? sum : 0.0f;
    }
    arrive(ring.empty(at.slot));
    at.advance();
  }
  for (int column = first + thread; column < all_keys; column += Ring::kReducerThreads) row[column] = 0.0f;
}

}  // namespace chipmunk::cuda::sm90
