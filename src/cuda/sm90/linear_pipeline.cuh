#pragma once

#include <cuda.h>

#include "cuda/cluster.cuh"
#include "cuda/sm90/attention_pipeline.cuh"
#include "cuda/sm90/linear_epilogue.cuh"
#include "cuda/sm90/linear_plan.h"

/// What the warps of the kernel for linears have in common: its arguments, the pieces of work, shared memory, and how
/// products get from those who compute to those who write (docs/kernels/linear.md).
namespace chipmunk::cuda::sm90::linear {

constexpr int kDepth = 64;  // of a stage
constexpr int kStages = 4;
constexpr int kConsumers = 2;  // warpgroups
constexpr int kComputingWarps = kConsumers * 4;

/// Of one linear.
struct Problem {
  CUtensorMap x, weight, half_weight;  // half_weight: in boxes for half as many columns
  EpilogueArguments epilogue;
  UnitGrid grid;
};

struct Arguments {
  Problem problems[kMaxProblems];
  int ends[kMaxProblems];  // see place_of
  int whole, pieces;       // whole units; together with the halves
  int steps;               // along the depth
  bool overlaps_last;      // LinearParams has it
};

/// Shared memory: stages of x and of weights; a part of the products of each warp that computes; and a pair of barriers
/// for each stage, and for each part.
template <int kWidth>
struct Pipeline {
  static constexpr int kRowsBytes = kBlockRows * kSwizzleRow, kWeightBytes = kWidth * kSwizzleRow;
  static constexpr int kStageBytes = kRowsBytes + kWeightBytes;
  static constexpr int kExchangeOffset = kStages * kStageBytes;
  static constexpr int kBarriersOffset = kExchangeOffset + kComputingWarps * Exchange::kBytes;
  static constexpr size_t kSharedBytes = kBarriersOffset + 2 * kStages * 8 + kSwizzlePattern;
  static_assert(Exchange::kBytes % 16 == 0 && kSharedBytes <= 227 * 1024);
  static_assert(kWidth / kClusterBlocks % 8 == 0);  // a half ends with a whole pattern of the swizzle

  uint32_t base;

  __device__ explicit Pipeline(const void* shared)
      : base((shared_address(shared) + kSwizzlePattern - 1) / kSwizzlePattern * kSwizzlePattern) {}
  __device__ uint32_t rows(int stage) const { return base + stage * kStageBytes; }
  __device__ uint32_t weights(int stage) const { return rows(stage) + kRowsBytes; }
  /// Of a warp of those that compute.
  __device__ Exchange exchange(int warp) const { return Exchange(base + kExchangeOffset + warp * Exchange::kBytes); }
  /// When it has put a part there, and when that has been taken.
  __device__ uint32_t put(int warp) const { return exchange(warp).unused(); }
  __device__ uint32_t taken(int warp) const { return put(warp) + 8; }
  __device__ uint32_t full(int stage) const { return base + kBarriersOffset + stage * 8; }
  /// Both blocks' warps let a stage go, since both blocks' producers write to it.
  __device__ uint32_t empty(int stage) const { return full(stage) + kStages * 8; }
  __device__ void init() const {
    for (int stage = 0; stage < kStages; ++stage) {
      init_barrier(full(stage), 1);
      init_barrier(empty(stage), kClusterBlocks * kComputingWarps);
    }
    for (int warp = 0; warp < kComputingWarps; ++warp) {
      init_barrier(put(warp), 1);
      init_barrier(taken(warp), 1);
    }
    fence_barrier_init();
  }
};
using Position = RingPosition<kStages>;

/// A cluster's pieces of work, one after the other.
template <bool kHalves>
class Pieces {
 public:
  __device__ explicit Pieces(const Arguments& a)
      : a_(a),
        clusters_(static_cast<int>(gridDim.x) / kClusterBlocks),
        next_(static_cast<int>(blockIdx.x) / kClusterBlocks) {}

  Place place;
  __device__ bool next() {
    if (next_ >= a_.pieces) return false;
    // Without halves, the compiler need not know of them.
    place = place_of(next_, kHalves ? a_.whole : a_.pieces, a_.ends,
                     [this](int problem) -> const UnitGrid& { return a_.problems[problem].grid; });
    next_ += clusters_;
    return true;
  }
  __device__ bool is_last() const { return next_ >= a_.pieces; }

 private:
  const Arguments& a_;
  int clusters_, next_;
};

/// Which rows of a part of a piece a computing warp has. part: its first column.
template <int kWidth>
__device__ WrittenRows rows_of(const Arguments& a, const Place& place, int warp, int part) {
  const EpilogueArguments& e = a.problems[place.problem].epilogue;
  const int width = place.half < 0 ? kWidth : kWidth / 2;
  const int row = place.row_unit * kUnitRows + cluster_rank() * kBlockRows + warp * Exchange::kRows;
  const int column = place.column_unit * kWidth + max(place.half, 0) * width + part;
  return {place.batch, row, column, e.rows - row, min(e.columns - column, width - part)};
}

template <int kWidth, Kind kKind>
__device__ Epilogue<kKind> epilogue_of(const Arguments& a, const Place& place, int warp, int part) {
  return Epilogue<kKind>(a.problems[place.problem].epilogue, rows_of<kWidth>(a, place, warp, part));
}

/// A warp's 16 rows of products on their way to those that write, a part at a time. The second part of a unit waits in
/// registers, rounded, until there is room for it, while the next unit is computed.
template <int kWidth>
class Products {
 public:
  __device__ Products(const Pipeline<kWidth>& pipeline, int warp)
      : exchange_(pipeline.exchange(warp)), put_(pipeline.put(warp)), taken_(pipeline.taken(warp)) {}

  __device__ const Exchange& exchange() const { return exchange_; }
  __device__ bool has_second() const { return has_second_; }

  /// Puts the first part of kColumns columns, as products have them, once there is room, and keeps the second one.
  template <int kColumns>
  __device__ void put_first(const float (&sums)[kColumns / 2]) {
    constexpr int kFirst = kColumns < kPartColumns ? kColumns : kPartColumns, kRest = kColumns - kFirst;
    wait_for_room();
    put<kFirst>([&](int pair) { return pack_bf16(sums[2 * pair], sums[2 * pair + 1]); });
    has_second_ = kRest > 0;
    if constexpr (kRest > 0) {
      static_assert(kRest == kSecond);
#pragma unroll
      for (int i = 0; i < kRest / 4; ++i) {
        second_[i] = pack_bf16(sums[kFirst / 2 + 2 * i], sums[kFirst / 2 + 2 * i + 1]);
      }
    }
  }
  /// Where there is room.
  __device__ void put_second() {
    put<kSecond>([&](int pair) { return second_[pair]; });
    has_second_ = false;
  }
  __device__ void wait_for_room() {
    wait(taken_, parity_ ^ 1);
    parity_ ^= 1;
  }
  /// Has what was put written by those that do nothing else.
  __device__ void announce() const {
    if (threadIdx.x % 32 == 0) arrive(put_);
  }

 private:
  static constexpr int kSecond = kWidth - kPartColumns;

  /// pairs(i): two columns of the lane's.
  template <int kColumns, class Pairs>
  __device__ void put(const Pairs& pairs) {
    static_assert(kColumns % 16 == 0);
#pragma unroll
    for (int block = 0; block < kColumns / 8; block += 2) {
      const uint32_t words[4] = {pairs(2 * block), pairs(2 * block + 1), pairs(2 * block + 2), pairs(2 * block + 3)};
      store_matrices(exchange_.matrices(block), words);
    }
    __syncwarp();
  }

  Exchange exchange_;
  uint32_t put_, taken_, parity_ = 0;
  uint32_t second_[kSecond / 4];
  bool has_second_ = false;
};

}  // namespace chipmunk::cuda::sm90::linear
