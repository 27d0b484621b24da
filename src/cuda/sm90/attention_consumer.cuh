#pragma once

#include <cuda_bf16.h>

#include "cuda/float_types.cuh"
#include "cuda/sm90/attention_pipeline.cuh"
#include "cuda/sm90/warpgroup.cuh"
#include "cuda/sm90/wgmma.cuh"

namespace chipmunk::cuda::sm90 {

constexpr float kLn2 = 0.6931471805599453f;

/// What happens to the probabilities of a tile besides: nothing.
struct NoTileHook {
  template <int kValues, class Base>
  __device__ void operator()(const float (&)[kValues], Base) const {}
  __device__ void pass() const {}
};

/// Brings a warpgroup's rows of q, where its products with the last ones are complete. By all of its threads.
template <class Shape>
__device__ void bring_queries(const AttentionPipeline<Shape>& pipeline, int warpgroup, const CUtensorMap& map,
                              int first_row, int head, int batch) {
  constexpr int kFirstBarrier = 4;  // lower ones are those of turns
  join_barrier(kFirstBarrier + warpgroup, 128);
  if (threadIdx.x % 128 != 0) return;
  const uint32_t full = pipeline.q_full(warpgroup);
  arrive_expecting(full, Shape::kWarpgroupQBytes);
  const auto q = pipeline.q();
#pragma unroll
  for (int block = 0; block < Shape::kHeadDim / kRowElements; ++block) {
    const int row = warpgroup * Shape::kWarpgroupRows;
    copy_box(q.address + block * q.kBlockBytes + row * kSwizzleRow, &map, full, block * kRowElements, first_row + row,
             head, batch);
  }
}

/// A warpgroup's part of attention: 64 query rows, of which thread i holds rows i / 32 * 16 + i % 32 / 4 and 8 more,
/// and of every 8 columns those at i % 4 * 2 and the next.
template <class Shape, bool kGathered>
struct AttentionConsumer {
  static constexpr int kTileKeys = Shape::kTileKeys;
  static constexpr int kHeadDim = Shape::kHeadDim;
  // Whether the last tile of gathered keys is multiplied no wider than they need. (Overlapped, it would take
  // registers.)
  static constexpr bool kNarrowTails = kGathered && !Shape::kOverlap;

  AttentionPipeline<Shape> pipeline;
  int warpgroup, lane;
  float scale_log2;

  typename AttentionPipeline<Shape>::Position keys_at, values_at;
  uint32_t q_parity = 0;

  float out[kHeadDim / 2];
  // Running softmax: the largest score so far, and the sum of probabilities relative to 2^base(largest score).
  float largest[2];
  float sum[2];

  __device__ AttentionConsumer(AttentionPipeline<Shape> shared, int warpgroup_index, float scale)
      : pipeline(shared), warpgroup(warpgroup_index), lane(static_cast<int>(threadIdx.x) % 32), scale_log2(scale) {
    // The first turn is the first warpgroup's.
    if constexpr (Shape::kTurns) {
      if (warpgroup == Shape::kWarpgroups - 1) end_turn();
    }
  }

  /// How many keys of a tile are multiplied where `keys` >= 1 are left: there must be as many rows, of numbers.
  __device__ static int width(int keys) {
    if (!kNarrowTails || keys > kNarrow) return kTileKeys;
    return keys > kNarrowest ? kNarrow : kNarrowest;
  }

  /// Attention of this warpgroup's rows over `keys` >= 1 keys, which the producer brings. Leaves the unnormalised
  /// result in out, and its rows' sums complete.
  /// next_queries() is called once this warpgroup's queries are not needed any more.
  /// hook receives the probabilities of each tile, and base(r) of its rows.
  template <class NextQueries, class TileHook = NoTileHook>
  __device__ void attend(int keys, NextQueries next_queries, TileHook hook = {}) {
    const int tiles = (keys + kTileKeys - 1) / kTileKeys;
    const int last_keys = keys - (tiles - 1) * kTileKeys;
    largest[0] = largest[1] = -INFINITY;
    sum[0] = sum[1] = 0.0f;
    wait_queries();
    if constexpr (Shape::kOverlap) {
      attend_overlapped(tiles, last_keys, next_queries, hook);
    } else {
      attend_in_turn(tiles, last_keys, next_queries, hook);
    }
    sum_over_lanes();
  }

  /// The same with rows that all warpgroups have: each computes every kWarpgroups-th tile. Leaves the result with the
  /// first one. Nothing may be on its way into the memory of keys after these.
  /// hook: as in attend(); hook.pass() is called where the last tiles are too few for this warpgroup to have one.
  template <class TileHook = NoTileHook>
  __device__ void attend_together(int keys, TileHook hook = {}) {
    static_assert(!Shape::kOverlap && !Shape::kTurns);
    auto nothing = [] {};
    clear();
    wait_queries();
    const int tiles = (keys + kTileKeys - 1) / kTileKeys;
    const int last_keys = keys - (tiles - 1) * kTileKeys;
    int next = warpgroup;
#pragma unroll 1
    for (int t = 0; t < tiles; ++t) {
      if (t < next) {
        pass_over_tile();
        continue;
      }
      next += Shape::kWarpgroups;
      if constexpr (kNarrowTails) {
        if (t == tiles - 1 && last_keys <= kNarrow) {
          attend_tail(t, last_keys, nothing, hook);
          continue;
        }
      }
      attend_tile<kTileKeys>(t, t == tiles - 1, last_keys, nothing, hook);
    }
    if (tiles % Shape::kWarpgroups != 0 && warpgroup >= tiles % Shape::kWarpgroups) hook.pass();
    sum_over_lanes();
    join_parts();
  }

  /// In place of attend() where there are no keys.
  template <class NextQueries>
  __device__ void attend_nothing(NextQueries next_queries) {
    wait_queries();
    next_queries();
    clear();
  }

  /// Waits for a stage of the ring that is no tile, and returns its slot.
  __device__ int wait_stage() const {
    wait(pipeline.values_full(values_at.slot), values_at.parity);
    return values_at.slot;
  }
  __device__ void release_stage() {
    release(pipeline.keys_empty(keys_at.slot));
    keys_at.advance();
    finish_values();
  }

  __device__ float lse(int r) const { return sum[r] == 0.0f ? -INFINITY : (base(r) + log2f(sum[r])) * kLn2; }

  /// What the result of row r is to be divided by; 0 where there was no key. The values were weighted with
  /// probabilities in bf16, of which the largest one's rounding matters most: it is in the divisor, too. (A row of one
  /// key is exact.)
  __device__ float divisor(int r) const {
    if (sum[r] == 0.0f) return 0.0f;
    const float top = exp2_fast(fmaf(largest[r], scale_log2, -base(r)));
    return sum[r] + (__bfloat162float(__float2bfloat16_rn(top)) - top);
  }

 private:
  // Multiples of 16; above the wider one a tile is computed as a whole.
  static constexpr int kNarrowest = 48, kNarrow = 80;
  static_assert(!kNarrowTails || kNarrow < kTileKeys);

  /// Adds up the warpgroups' parts of a result, in the first one's registers.
  __device__ void join_parts() {
    constexpr int kBarrier = 7, kThreads = Shape::kWarpgroups * 128;
    // A thread's values lie 128 apart, beside those of the others that hold the same.
    constexpr int kPart = 128 * (kHeadDim / 2 + 4);
    static_assert((Shape::kWarpgroups - 1) * kPart * 4 <= Shape::kValuesOffset - Shape::kKeysOffset);
    float* mine = static_cast<float*>(__cvta_shared_to_generic(pipeline.base + Shape::kKeysOffset)) + threadIdx.x % 128;
    join_barrier(kBarrier, kThreads);
    if (warpgroup > 0) {
      float* part = mine + (warpgroup - 1) * kPart;
#pragma unroll
      for (int i = 0; i < kHeadDim / 2; ++i) part[i * 128] = out[i];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        part[(kHeadDim / 2 + r) * 128] = sum[r];
        part[(kHeadDim / 2 + 2 + r) * 128] = largest[r];
      }
    }
    join_barrier(kBarrier, kThreads);
    if (warpgroup > 0) return;
#pragma unroll 1
    for (int other = 1; other < Shape::kWarpgroups; ++other) add_part(mine + (other - 1) * kPart);
  }

  /// The power of 2 that row r's probabilities are relative to: an integer, so that changing it multiplies by powers of
  /// 2, without rounding.
  __device__ float base(int r) const { return ceilf(largest[r] * scale_log2); }

  /// The scores of a tile and the values of the one before are multiplied while its softmax is computed.
  template <class NextQueries, class TileHook>
  __device__ void attend_overlapped(int tiles, int last_keys, NextQueries& next_queries, TileHook& hook) {
    float scores[kTileKeys / 2];
    uint32_t probabilities[kTileKeys / 4];
    float factors[2];
    begin_turn();
    start_scores(scores);
    end_turn();
    wait_products<0>();
    finish_scores(scores, tiles == 1, last_keys, next_queries);
    update_softmax(scores, factors);
    hook(scores, [this](int r) { return base(r); });
    pack(scores, probabilities);
    for (int t = 1; t < tiles; ++t) {
      begin_turn();
      start_scores(scores);
      start_values(probabilities, t > 1);
      end_turn();
      wait_products<1>();
      finish_scores(scores, t == tiles - 1, last_keys, next_queries);
      update_softmax(scores, factors);
      hook(scores, [this](int r) { return base(r); });
      wait_products<0>();
      finish_values();
      rescale(factors);
      pack(scores, probabilities);
    }
    start_values(probabilities, tiles > 1);
    wait_products<0>();
    finish_values();
  }

  /// One after the other: the probabilities take the registers of the scores.
  template <class NextQueries, class TileHook>
  __device__ void attend_in_turn(int tiles, int last_keys, NextQueries& next_queries, TileHook& hook) {
    const int whole_tiles = width(last_keys) == kTileKeys ? tiles : tiles - 1;
    for (int t = 0; t < whole_tiles; ++t) {
      float scores[kTileKeys / 2];
      uint32_t probabilities[kTileKeys / 4];
      float factors[2];
      begin_turn();
      start_scores(scores);
      end_turn();
      wait_products<0>();
      finish_scores(scores, t == tiles - 1, last_keys, next_queries);
      update_softmax(scores, factors);
      hook(scores, [this](int r) { return base(r); });
      if (t > 0) rescale(factors);
      pack(scores, probabilities);
      start_values(probabilities, t > 0);
      wait_products<0>();
      finish_values();
    }
    if constexpr (kNarrowTails) {
      if (whole_tiles < tiles) attend_tail(whole_tiles, last_keys, next_queries, hook);
    }
  }

  /// One tile in the same way. (In place of the loop's body it costs registers there.)
  template <int kKeys, class NextQueries, class TileHook>
  __device__ void attend_tile(int t, bool last, int last_keys, NextQueries& next_queries, TileHook& hook) {
    float scores[kKeys / 2];
    uint32_t probabilities[kKeys / 4];
    float factors[2];
    begin_turn();
    start_scores(scores);
    end_turn();
    wait_products<0>();
    finish_scores(scores, last, last_keys, next_queries);
    update_softmax(scores, factors);
    hook(scores, [this](int r) { return base(r); });
    if (t > 0) rescale(factors);
    pack(scores, probabilities);
    start_values(probabilities, t > 0);
    wait_products<0>();
    finish_values();
  }

  /// The last tile, where it has few keys.
  template <class NextQueries, class TileHook>
  __device__ void attend_tail(int t, int keys, NextQueries& next_queries, TileHook& hook) {
    if (keys <= kNarrowest) {
      attend_tile<kNarrowest>(t, true, keys, next_queries, hook);
    } else {
      attend_tile<kNarrow>(t, true, keys, next_queries, hook);
    }
  }

  /// A tile of another warpgroup's.
  __device__ void pass_over_tile() {
    // Not before it is there: the barriers count every warp once for each tile.
    wait(pipeline.keys_full(keys_at.slot), keys_at.parity);
    release(pipeline.keys_empty(keys_at.slot));
    keys_at.advance();
    wait(pipeline.values_full(values_at.slot), values_at.parity);
    finish_values();
  }

  __device__ void sum_over_lanes() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 1);
      sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 2);
    }
  }

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kHeadDim / 2; ++i) out[i] = 0.0f;
    largest[0] = largest[1] = -INFINITY;
    sum[0] = sum[1] = 0.0f;
  }

  /// Adds what another warpgroup has of the same rows.
  __device__ void add_part(const float* part) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float part_sum = part[(kHeadDim / 2 + r) * 128], part_largest = part[(kHeadDim / 2 + 2 + r) * 128];
      const float old_base = base(r), part_base = ceilf(part_largest * scale_log2);
      largest[r] = fmaxf(largest[r], part_largest);
      // What has no key does not count; its base is no number.
      const float factor = sum[r] == 0.0f ? 0.0f : exp2_fast(old_base - base(r));
      const float part_factor = part_sum == 0.0f ? 0.0f : exp2_fast(part_base - base(r));
      sum[r] = sum[r] * factor + part_sum * part_factor;
#pragma unroll
      for (int i = 2 * r; i < kHeadDim / 2; i += 4) {
#pragma unroll
        for (int e = i; e < i + 2; ++e) out[e] = out[e] * factor + part[e * 128] * part_factor;
      }
    }
  }

  /// A turn is a barrier between a warpgroup and the one before it.
  __device__ void begin_turn() const {
    if constexpr (Shape::kTurns) join_barrier(1 + warpgroup, 256);
  }
  __device__ void end_turn() const {
    if constexpr (Shape::kTurns) pass_barrier(1 + (warpgroup + 1) % Shape::kWarpgroups, 256);
  }

  // Of so many keys of a tile as the arrays have room for.

  template <int kValues>
  __device__ void start_scores(float (&scores)[kValues]) const {
    wait_tile(pipeline.keys_full(keys_at.slot), keys_at.parity);
    fence_products();
    issue_scores(scores);
    commit_products();
  }
  /// last: of this group's tiles, which may have fewer keys.
  template <int kValues, class NextQueries>
  __device__ void finish_scores(float (&scores)[kValues], bool last, int last_keys, NextQueries& next_queries) {
    release(pipeline.keys_empty(keys_at.slot));
    keys_at.advance();
    if (!last) return;
    next_queries();
    if (last_keys < 2 * kValues) mask(scores, last_keys);
  }
  template <int kPairs>
  __device__ void start_values(const uint32_t (&probabilities)[kPairs], bool accumulate) {
    wait_tile(pipeline.values_full(values_at.slot), values_at.parity);
    fence_products();
    issue_values(probabilities, accumulate);
    commit_products();
  }
  __device__ void finish_values() {
    release(pipeline.values_empty(values_at.slot));
    values_at.advance();
  }

  __device__ void wait_queries() {
    wait(pipeline.q_full(warpgroup), q_parity);
    q_parity ^= 1;
  }
  __device__ void wait_tile(uint32_t barrier, uint32_t parity) const {
    wait(barrier, parity);
    // Gathered rows were written as ordinary stores are; tensor cores read by another way.
    if constexpr (kGathered) fence_async_proxy();
  }

  __device__ void release(uint32_t barrier) const {
    if (lane == 0) arrive(barrier);
  }

  template <int kValues>
  __device__ void issue_scores(float (&scores)[kValues]) const {
    using Q = typename AttentionPipeline<Shape>::QMatrix;
    using Tile = typename AttentionPipeline<Shape>::TileMatrix;
    const uint64_t q = pipeline.q().depth_along_rows(warpgroup * Shape::kWarpgroupRows);
    const uint64_t keys = pipeline.keys(keys_at.slot).depth_along_rows(0);
#pragma unroll
    for (int step = 0; step < kHeadDim / 16; ++step) {
      Wgmma<2 * kValues>::shared_shared(scores, q + Q::depth_along_rows_step(step),
                                        keys + Tile::depth_along_rows_step(step), step > 0);
    }
  }

  template <int kPairs>
  __device__ void issue_values(const uint32_t (&probabilities)[kPairs], bool accumulate) {
    using Tile = typename AttentionPipeline<Shape>::TileMatrix;
    const uint64_t values = pipeline.values(values_at.slot).depth_down_columns();
#pragma unroll
    for (int step = 0; step < kPairs / 4; ++step) {
      const uint32_t a[4] = {probabilities[4 * step], probabilities[4 * step + 1], probabilities[4 * step + 2],
                             probabilities[4 * step + 3]};
      Wgmma<kHeadDim>::registers_shared(out, a, values + Tile::depth_down_columns_step(step), step > 0 || accumulate);
    }
  }

  template <int kValues>
  __device__ void mask(float (&scores)[kValues], int keys) const {
    const int end = keys - lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      if (i / 4 * 8 + i % 2 >= end) scores[i] = -INFINITY;
    }
  }

  /// Turns scores into probabilities relative to the largest so far. factors: what the result so far is to be
  /// multiplied with.
  template <int kValues>
  __device__ void update_softmax(float (&scores)[kValues], float (&factors)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float top = scores[2 * r];
#pragma unroll
      for (int i = 0; i < kValues; i += 4) top = fmaxf(top, fmaxf(scores[i + 2 * r], scores[i + 2 * r + 1]));
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
      const float old_base = base(r);
      largest[r] = fmaxf(largest[r], top);
      // A row that has seen no key yet has nothing to subtract.
      const float new_base = largest[r] == -INFINITY ? 0.0f : base(r);
      factors[r] = exp2_fast(old_base - new_base);
      float tile_sum = 0.0f;
#pragma unroll
      for (int i = 0; i < kValues; i += 4) {
#pragma unroll
        for (int e = i + 2 * r; e < i + 2 * r + 2; ++e) {
          scores[e] = exp2_fast(fmaf(scores[e], scale_log2, -new_base));
          tile_sum += scores[e];
        }
      }
      sum[r] = fmaf(sum[r], factors[r], tile_sum);
    }
  }

  __device__ void rescale(const float (&factors)[2]) {
    // The largest grows rarely after the first tiles.
    if (!__any_sync(0xffffffffu, factors[0] != 1.0f || factors[1] != 1.0f)) return;
#pragma unroll
    for (int i = 0; i < kHeadDim / 2; ++i) out[i] *= factors[i / 2 % 2];
  }

  template <int kValues>
  __device__ static void pack(const float (&scores)[kValues], uint32_t (&probabilities)[kValues / 2]) {
#pragma unroll
    for (int i = 0; i < kValues / 2; ++i) probabilities[i] = pack_bf16(scores[2 * i], scores[2 * i + 1]);
  }
};

/// Of four words in each of four neighbouring lanes, word j of lane i becomes word i of lane j.
__device__ inline void transpose_quad(uint32_t (&words)[4], int lane) {
  const bool odd = (lane & 1) != 0, high = (lane & 2) != 0;
  const uint32_t first = __shfl_xor_sync(0xffffffffu, odd ? words[0] : words[1], 1);
  const uint32_t second = __shfl_xor_sync(0xffffffffu, odd ? words[2] : words[3], 1);
  (odd ? words[0] : words[1]) = first;
  (odd ? words[2] : words[3]) = second;
  const uint32_t third = __shfl_xor_sync(0xffffffffu, high ? words[0] : words[2], 2);
  const uint32_t fourth = __shfl_xor_sync(0xffffffffu, high ? words[1] : words[3], 2);
  (high ? words[0] : words[2]) = third;
  (high ? words[1] : words[3]) = fourth;
}

}  // namespace chipmunk::cuda::sm90
