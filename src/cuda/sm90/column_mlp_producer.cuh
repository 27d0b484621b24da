#pragma once

#include "cuda/sm90/column_mlp_tiles.cuh"
#include "cuda/sm90/warp_exchange.cuh"

/// What brings operands of the sparse MLP's two kernels to those who compute (docs/kernels/column_mlp.md): the ring of
/// stages in shared memory, and the warpgroup that fills it.
namespace chipmunk::cuda::sm90::mlp {

constexpr int kStages = 4;
constexpr int kConsumers = 2;  // warpgroups
constexpr int kThreads = (kConsumers + 1) * 128;
constexpr int kProducerThreads = 128;
/// What a thread has: of those who bring operands, and of those who compute. Add's producers want addresses for all
/// copies of a step.
template <bool kRenew>
struct Registers {
  static constexpr int kProducer = kRenew ? 56 : 72, kConsumer = kRenew ? 224 : 216;
  /// What a thread of a block of so many begins with; together they get no more.
  static constexpr int kFirst = 65536 / kThreads / 8 * 8;
  static_assert(kProducer + kConsumers * kConsumer <= (kConsumers + 1) * kFirst);
};

/// What a stage holds: the gathered operand and the one that comes in boxes.
constexpr int kGatheredBytes = kTileWidth * kDepth * 2, kBoxedBytes = kTokens * kDepth * 2;
constexpr int kStageBytes = kGatheredBytes + kBoxedBytes;
/// Where each warp that computes brings half of its results into the order of memory.
constexpr int kExchangeColumns = 128;
using Exchange = WarpExchange<kExchangeColumns>;
constexpr int kExchangeOffset = kStages * kStageBytes;
constexpr int kBarriersOffset = kExchangeOffset + kConsumers * 4 * Exchange::kBytes;
constexpr size_t kSharedBytes = kBarriersOffset + 2 * kStages * 8 + kSwizzlePattern;

/// Shared memory, and a pair of barriers for each stage: full when it is there, empty when both warpgroups are done.
struct Pipeline {
  uint32_t base;

  __device__ explicit Pipeline(const void* shared)
      : base((shared_address(shared) + kSwizzlePattern - 1) / kSwizzlePattern * kSwizzlePattern) {}
  __device__ uint32_t gathered(int stage) const { return base + stage * kStageBytes; }
  __device__ uint32_t boxed(int stage) const { return gathered(stage) + kGatheredBytes; }
  __device__ uint32_t full(int stage) const { return base + kBarriersOffset + stage * 8; }
  __device__ uint32_t empty(int stage) const { return full(stage) + kStages * 8; }
  /// Of the calling warp, which computes.
  __device__ uint32_t exchange() const {
    return base + kExchangeOffset + (warp_index() - kProducerThreads / 32) * Exchange::kBytes;
  }

  __device__ void init() const {
    for (int stage = 0; stage < kStages; ++stage) {
      // Every thread that gathers, and the one that asks for boxes.
      init_barrier(full(stage), kProducerThreads + 1);
      init_barrier(empty(stage), kConsumers * 4);
    }
    fence_barrier_init();
  }
};
using Position = RingPosition<kStages>;

/// Brings tiles of x and the kept rows of the first weight.
__device__ inline void bring_renew(const Arguments& a, const Pipeline& pipeline) {
  using Gathered = SharedMatrix<kTileWidth, kDepth>;
  constexpr int kChunks = kDepth / 8, kRowsAtOnce = kProducerThreads / kChunks, kCopies = kTileWidth / kRowsAtOnce;
  const int thread = static_cast<int>(threadIdx.x), row = thread / kChunks, chunk = thread % kChunks;
  static_assert(kRowsAtOnce % 8 == 0);  // so that all of a thread's rows lie alike in the swizzle
  const uint32_t offset = Gathered{0}.chunk(row, chunk);
  Position at;
  RenewTiles tiles(a);
  while (tiles.next()) {
    uint32_t rows[kCopies];
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      // Places past the list's end take its last feature; nobody looks at the result.
      const int place = min(tiles.first_place + row + i * kRowsAtOnce, tiles.count - 1);
      rows[i] = static_cast<uint32_t>(a.feature(tiles.block, tiles.count, place)) * a.weight_row_bytes + chunk * 16;
    }
    // Whole products of 64 features.
    const int copies = (tiles.places + 63) / 64 * (64 / kRowsAtOnce);
    const int batch = a.batch(tiles.block), first_row = a.first_row(tiles.block);
    const char* weight = a.weight(tiles.block).data;
#pragma unroll 1
    for (int step = 0; step < a.steps; ++step) {
      wait(pipeline.empty(at.slot), at.parity ^ 1);
      const uint32_t full = pipeline.full(at.slot);
      if (thread == 0) {
        arrive_expecting(full, kBoxedBytes);
        copy_box(pipeline.boxed(at.slot), &a.boxed, full, step * kDepth, first_row, 0, batch);
      }
      const uint32_t to = pipeline.gathered(at.slot) + offset;
#pragma unroll
      for (int i = 0; i < kCopies; ++i) {
        if (i < copies) copy_16(to + i * kRowsAtOnce * kSwizzleRow, weight + rows[i]);
      }
      arrive_after_copies(full);
      weight += kDepth * 2;
      at.advance();
    }
  }
}

/// The same value, of which the compiler does not know it: what follows from it is computed within the tile, and takes
/// no registers outside.
__device__ inline int opaque(int value) {
  int result;
  asm volatile("mov.b32 %0, %1;" : "=r"(result) : "r"(value));
  return result;
}
/// Where a row lies; computed where it is asked for, even if a wait stands before its use.
__device__ inline const char* row_address(const char* base, uint32_t row, uint32_t row_bytes) {
  uint64_t address;
  asm volatile("mad.wide.u32 %0, %1, %2, %3;" : "=l"(address) : "r"(row), "r"(row_bytes), "l"(base));
  return reinterpret_cast<const char*>(address);
}

/// Brings a tile of the differences and the kept rows of the second weight, kWidth channels of them.
template <int kWidth>
__device__ void bring_add_tile(const Arguments& a, const Pipeline& pipeline, const AddTiles& tile, Position& at) {
  using Gathered = SharedMatrix<kDepth, kWidth>;
  // A warp brings kRows rows at once, 16 in a step.
  constexpr int kChunks = kWidth / 8, kRows = 32 / kChunks, kRowsAtOnce = 4 * kRows, kCopies = kDepth / kRowsAtOnce;
  static_assert(kProducerThreads == 4 * 32 && (2 * kRowsAtOnce) % 8 == 0 && kCopies * kRows == 16);
  const int thread = opaque(static_cast<int>(threadIdx.x)), warp = __shfl_sync(0xffffffffu, thread / 32, 0),
            lane = thread % 32;
  const int chunk = lane % kChunks, first_row = warp * kRows;
  const uint32_t offset = Gathered{0}.chunk(first_row + lane / kChunks, chunk);
  // Rows repeat in the swizzle after eight: the next one's chunk lies as this one's, or on the other side of the
  // pattern.
  constexpr uint32_t kOther = kRowsAtOnce % 8 == 0 ? 0 : 4 * 16;
  static_assert(kRowsAtOnce % 4 == 0);
  const char* weight = a.weight(tile.block).data + (tile.first_channel + chunk * 8) * int64_t{2};
  // A lane asks for the feature of one of the warp's rows, of this step or the next. Long before: what it asks for
  // comes back behind all the copies that are under way. Past the end it is the last one, whose differences are zeros
  // there.
  constexpr int kAhead = kStages;
  const int place = lane / 16 * kDepth + first_row + lane % 16 % kRows + lane % 16 / kRows * kRowsAtOnce;
  const auto ask = [&](int step) {
    return a.feature(tile.block, tile.count, min(step * kDepth + place, tile.count - 1));
  };
  int features[kAhead / 2];
#pragma unroll
  for (int i = 0; i < kAhead; i += 2) features[i / 2] = ask(i);
  const auto bring = [&](int step, int first_lane, int feature) {
    // All addresses before the wait, so that the copies leave at once behind it.
    const char* rows[kCopies];
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int row = __shfl_sync(0xffffffffu, feature, first_lane + i * kRows + lane / kChunks);
      rows[i] = row_address(weight, static_cast<uint32_t>(row), a.weight_row_bytes);
    }
    wait(pipeline.empty(at.slot), at.parity ^ 1);
    const uint32_t full = pipeline.full(at.slot);
    if (thread == 0) {
      constexpr int kHalfBytes = kDepth * kSwizzleRow;
      static_assert(kHalfTokens == kRowElements && kTokenHalves * kHalfBytes == kBoxedBytes);
      // Whole tiles have both, as the compiler is to know.
      constexpr bool kIsWhole = kWidth == kTileWidth;
      arrive_expecting(full, kIsWhole ? kBoxedBytes : tile.token_halves() * kHalfBytes);
#pragma unroll
      for (int half = 0; half < kTokenHalves; ++half) {
        if (kIsWhole || tile.has_half(half)) {
          copy_box(pipeline.boxed(at.slot) + half * kHalfBytes, &a.boxed, full, half * kHalfTokens, step * kDepth, 0,
                   tile.block);
        }
      }
    }
    const uint32_t even = pipeline.gathered(at.slot) + offset, odd = even ^ kOther;
    constexpr int kDistance = kRowsAtOnce * kSwizzleRow;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) copy_16((i % 2 == 0 ? even : odd) + i * kDistance, rows[i]);
    arrive_after_copies(full);
    at.advance();
  };
#pragma unroll 1
  for (int first = 0; first < tile.steps; first += kAhead) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (first + i >= tile.steps) return;
      bring(first + i, i % 2 * 16, features[i / 2]);
      if (i % 2 == 1) features[i / 2] = ask(first + i / 2 * 2 + kAhead);
    }
  }
}

__device__ inline void bring_add(const Arguments& a, const Pipeline& pipeline) {
  Position at;
  AddTiles tiles(a);
  while (tiles.next()) {
    if (tiles.is_whole) {
      bring_add_tile<kTileWidth>(a, pipeline, tiles, at);
    } else {
      bring_add_tile<kQuarterWidth>(a, pipeline, tiles, at);
    }
  }
}

}  // namespace chipmunk::cuda::sm90::mlp
