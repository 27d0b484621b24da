#pragma once

#include "cuda/row_selection.cuh"
#include "cuda/selection_plan.h"

namespace chipmunk::cuda {

/// What a block needs of shared memory to find the largest of the keys that its threads hold.
template <int kThreads>
struct HeldTopKShared {
  static constexpr int kSamples = 2 * kThreads / kWarpSize, kBins = 512, kCandidates = 256;

  // They take turns.
  alignas(16) uint32_t bins[2][kBins];
  alignas(16) uint32_t candidates[kCandidates];
  uint32_t samples[kSamples];
  uint32_t low, high;
  // The bin of the k-th largest key; its rank among the keys that share it; how many do.
  uint32_t bin, rank, count;
  uint32_t listed;
  uint32_t picked[kThreads];  // bits of keys
};

/// Finds the k largest keys of a row of which every thread of a block holds kKeys. It looks at them as SampledTopK
/// does, but a pass is a few instructions a key, with no memory read.
///
/// column_of(i), below 1 << kColumnBits, is that of a thread's key i, and ColumnOf::holder_of(column) the thread and
/// its key that have it: of equal keys the lower column wins. Keys of 0 are no column's; none exceeds 0xff800000.
template <int kThreads, int kKeys, int kColumnBits, class ColumnOf>
class HeldTopK {
 public:
  using Keys = uint32_t[kKeys];
  using Shared = HeldTopKShared<kThreads>;

  /// By all threads; a barrier lies between this and begin().
  __device__ HeldTopK(Shared& shared, ColumnOf column_of) : s_(shared), column_of_(column_of) {
    static_assert(kThreads == 2 * Shared::kBins && kThreads >= Shared::kCandidates);
    s_.bins[thread() / Shared::kBins][thread() % Shared::kBins] = 0;
    if (thread() < Shared::kCandidates) s_.candidates[thread()] = 0;
    s_.picked[thread()] = 0;
    if (thread() == 0) s_.listed = 0;
  }

  /// Bit i is set for key i if it is among the k largest, and not one of those few that finish() is left to decide on;
  /// there are at least k >= 1 that are not 0. All threads call it once.
  __device__ uint32_t begin(const Keys& keys, int k, const SampleRanks& ranks) {
    sample(keys, ranks);
    int shift = max(kWordBits - __clz(static_cast<int>(s_.high - s_.low)) - kBinBits, 0);
    // The lowest bin takes all below the sample's bounds, too, and the highest all above.
    uint32_t lowest = s_.low - min(s_.low, 1u << shift);
    for_each(keys, [&](uint32_t key, int) { count(min((max(key, lowest) - lowest) >> shift, kLastBin)); });
    Bin bin = find_bin(static_cast<uint32_t>(k));
    // The sample was wrong, so from the first bits on.
    if (bin.number == 0 || (bin.number == kLastBin && bin.rank < bin.count)) {
      lowest = 0;
      shift = kWordBits - kBinBits;
      for_each(keys, [&](uint32_t key, int) { count(key >> shift); });
      bin = find_bin(static_cast<uint32_t>(k));
    }
    lowest += bin.number << shift;
    // Bins of the bin, until all that it has are among the k largest, or are few that differ in few bits, or are equal.
    // No end of a bin is beyond all integers: no key has nine ones in front and more behind.
    while (bin.rank < bin.count && (bin.count > Shared::kCandidates || shift > kCandidateBits) && shift > 0) {
      const uint32_t width = 1u << shift;
      shift = max(shift - kBinBits, 0);
      for_each(keys, [&](uint32_t key, int) {
        if (key - lowest < width) count((key - lowest) >> shift);
      });
      bin = find_bin(bin.rank);
      lowest += bin.number << shift;
    }
    uint32_t undecided = at_least(keys, lowest);
    if (bin.rank == bin.count) return undecided;
    uint32_t chosen = at_least(keys, lowest + (1u << shift));
    undecided &= ~chosen;
    // Of too many equal ones those with the lowest columns: bins of columns have few each.
    if (bin.count > Shared::kCandidates) {
      for_each_of(undecided, [&](int i) { count(backward(i) / kColumnsOfBin); });
      bin = find_bin(bin.rank);
      const uint32_t equal = undecided;
      for_each_of(equal, [&](int i) {
        const uint32_t bin_of_it = backward(i) / kColumnsOfBin;
        if (bin_of_it != bin.number) undecided &= ~(1u << i);
        if (bin_of_it > bin.number) chosen |= 1u << i;
      });
    }
    candidates_ = bin.count;
    wanted_ = bin.rank;
    if (undecided != 0) {
      uint32_t at = atomicAdd(&s_.listed, static_cast<uint32_t>(__popc(undecided)));
      for_each(keys, [&](uint32_t key, int i) {
        const bool is_listed = (undecided >> i & 1) != 0;
        if (is_listed) s_.candidates[at] = (key - lowest) << kColumnBits | backward(i);
        at += static_cast<uint32_t>(is_listed);
      });
    }
    return chosen;
  }

  /// The bits of the keys that begin() left and that are among the k largest. All threads call it.
  __device__ uint32_t finish() {
    if (candidates_ == 0) return 0;
    __syncthreads();
    pick();
    __syncthreads();
    return s_.picked[thread()];
  }

 private:
  static constexpr int kBinBits = 9;
  static constexpr uint32_t kLastBin = Shared::kBins - 1;
  static_assert(Shared::kBins == 1 << kBinBits);
  static constexpr uint32_t kColumns = 1u << kColumnBits;
  static constexpr int kCandidateBits = kWordBits - kColumnBits;
  static constexpr uint32_t kColumnsOfBin = kColumns / Shared::kBins;
  static_assert(kColumnsOfBin <= Shared::kCandidates);

  struct Bin {
    uint32_t number, rank, count;
  };

  __device__ static int thread() { return static_cast<int>(threadIdx.x); }
  __device__ static int warp() { return thread() / kWarpSize; }
  __device__ static int lane() { return thread() % kWarpSize; }

  template <class Body>
  __device__ static void for_each(const Keys& keys, Body body) {
#pragma unroll
    for (int i = 0; i < kKeys; ++i) body(keys[i], i);
  }
  /// The bits of those that are `least` or more.
  __device__ static uint32_t at_least(const Keys& keys, uint32_t least) {
    uint32_t bits = 0;
    for_each(keys, [&](uint32_t key, int i) { bits |= static_cast<uint32_t>(key >= least) << i; });
    return bits;
  }
  template <class Body>
  __device__ static void for_each_of(uint32_t bits, Body body) {
    for (; bits != 0; bits &= bits - 1) body(__ffs(static_cast<int>(bits)) - 1);
  }
  /// Larger for lower columns.
  __device__ uint32_t backward(int i) const { return kColumns - 1 - static_cast<uint32_t>(column_of_(i)); }

  __device__ void count(uint32_t bin) const { atomicAdd(&s_.bins[pass_ % 2][bin], 1u); }

  /// Finds two keys of the row between which the k-th largest probably lies.
  __device__ void sample(const Keys& keys, const SampleRanks& ranks) {
    // Two of a warp, from everywhere in the row.
    const int turn = warp() % kKeys;
    uint32_t key = keys[0];
#pragma unroll
    for (int i = 1; i < kKeys; ++i) key = i == turn ? keys[i] : key;
    if (lane() % 16 == 8) s_.samples[thread() / 16] = key;
    __syncthreads();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = 2 * warp() + half;
      const uint32_t mine = s_.samples[i];
      uint32_t rank = 0;
#pragma unroll
      for (int other = lane(); other < Shared::kSamples; other += kWarpSize) {
        const uint32_t sampled = s_.samples[other];
        rank += static_cast<uint32_t>(sampled > mine || (sampled == mine && other < i));
      }
      rank = __reduce_add_sync(kAllLanes, rank);
      if (lane() == 0 && rank == static_cast<uint32_t>(ranks.high)) s_.high = mine;
      if (lane() == 0 && rank == static_cast<uint32_t>(ranks.low)) s_.low = mine;
    }
    __syncthreads();
  }

  /// The bin of the k-th largest of the keys that were counted. Those of the next pass are empty then.
  __device__ Bin find_bin(uint32_t k) {
    __syncthreads();
    if (warp() == 0) search_bins(k);
    if (pass_ > 0 && thread() >= Shared::kBins) s_.bins[(pass_ + 1) % 2][thread() - Shared::kBins] = 0;
    ++pass_;
    __syncthreads();
    return {s_.bin, s_.rank, s_.count};
  }

  /// Run by one warp: the result is in shared memory.
  __device__ void search_bins(uint32_t k) {
    // From the largest keys down, a lane has kOfLane bins.
    constexpr int kOfLane = Shared::kBins / kWarpSize;
    static_assert(kOfLane <= kWarpSize);
    const uint32_t* bins = s_.bins[pass_ % 2];
    uint32_t count = 0;
#pragma unroll
    for (int i = 0; i < kOfLane; i += 4) {
      const auto four = *reinterpret_cast<const uint4*>(&bins[(kWarpSize - 1 - lane()) * kOfLane + i]);
      count += four.x + four.y + four.z + four.w;
    }
    uint32_t above = warp_scan(count);
    int owner = __ffs(static_cast<int>(__ballot_sync(kAllLanes, above + count >= k))) - 1;
    k -= __shfl_sync(kAllLanes, above, owner);
    const int bin = (kWarpSize - owner) * kOfLane - 1 - lane();
    count = lane() < kOfLane ? bins[bin] : 0;
    above = warp_scan(count);
    owner = __ffs(static_cast<int>(__ballot_sync(kAllLanes, above + count >= k))) - 1;
    if (lane() == owner) {
      s_.bin = static_cast<uint32_t>(bin);
      s_.rank = k - above;
      s_.count = count;
    }
  }

  /// Sets the bits of the largest of the candidates, which all differ.
  __device__ void pick() {
    constexpr int kLanes = kThreads / Shared::kCandidates;  // of a candidate
    const int i = thread() / kLanes;
    // Together, as a warp's lanes ask each other.
    if (i - lane() / kLanes >= static_cast<int>(candidates_)) return;
    const uint32_t mine = s_.candidates[i];
    uint32_t better = 0;
#pragma unroll 2
    for (uint32_t other = thread() % kLanes * 4; other < candidates_; other += kLanes * 4) {
      // Behind the last one are zeros.
      const auto four = *reinterpret_cast<const uint4*>(&s_.candidates[other]);
      better += static_cast<uint32_t>(four.x > mine) + static_cast<uint32_t>(four.y > mine) +
                static_cast<uint32_t>(four.z > mine) + static_cast<uint32_t>(four.w > mine);
    }
#pragma unroll
    for (int offset = 1; offset < kLanes; offset *= 2) better += __shfl_xor_sync(kAllLanes, better, offset);
    if (thread() % kLanes != 0 || i >= static_cast<int>(candidates_) || better >= wanted_) return;
    const auto [owner, key] = ColumnOf::holder_of(static_cast<int>(kColumns - 1 - mine % kColumns));
    atomicOr(&s_.picked[owner], 1u << key);
  }

  Shared& s_;
  ColumnOf column_of_;
  int pass_ = 0;
  uint32_t candidates_ = 0, wanted_ = 0;
};

}  // namespace chipmunk::cuda
