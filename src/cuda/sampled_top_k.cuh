#pragma once

#include "cuda/row_selection.cuh"

namespace chipmunk::cuda {

/// Finds the k largest keys of a row with fewer passes over them and fewer barriers than RowSelection::add_top_k(): a
/// sample of the row says between which keys the k-th largest may lie. The result is exact: where the sample was wrong,
/// add() says so. All threads of all blocks of a cluster call the same, with the same arguments: sample(), count() for
/// every key of their slices, add().
class SampledTopK {
 public:
  __device__ SampledTopK(SelectionShared& shared, const RowSlice& slice) : shared_(shared), slice_(slice) {}

  /// key_of(column) is the key of any column of the row. Every block takes the whole sample, so that all know the same.
  template <class KeyOf>
  __device__ void sample(int k, KeyOf key_of) {
    SampleCounts& s = shared_.sample;
    constexpr int kSamples = SampleCounts::kSamples;
    if (thread() < kSamples) s.samples[thread()] = key_of(sampled_column(thread()));
    for (int i = thread(); i < SampleCounts::kBins; i += kSelectionThreads) s.bins[i] = 0;
    if (thread() == 0) s.candidates = 0;
    // Of the last word, bits without a column.
    if (thread() < -slice_.columns % kWordBits + kWordBits && slice_.columns % kWordBits != 0) {
      slice_.keys[slice_.columns + thread()] = 0;
    }
    __syncthreads();
    if (thread() < kSamples) {
      // The sample's ranks between which the k-th largest key lies but for four standard deviations.
      const float share = static_cast<float>(k) / static_cast<float>(slice_.row_columns);
      const float expected = share * kSamples, margin = 4.0f * sqrtf(expected * (1.0f - share)) + 1.0f;
      const uint32_t key = s.samples[thread()];
      const int rank = rank_in_sample(key);
      if (rank == max(static_cast<int>(expected - margin), 0)) s.high = key;
      if (rank == min(static_cast<int>(expected + margin), kSamples - 1)) s.low = key;
    }
    __syncthreads();
    low_ = s.low;
    const int bits = kWordBits - __clz(static_cast<int>(s.high - low_));
    shift_ = max(bits - kBinBits, 0);
  }

  __device__ void count(uint32_t key) const {
    if (key >= low_) atomicAdd(&shared_.sample.bins[min((key - low_) >> shift_, kLastBin)], 1u);
  }

  /// Keeps the k >= 1 columns with the largest keys too, of equal ones the lower; at least k of the row's keys are not
  /// 0. May overwrite the keys. False where the sample did not help: then some of these columns are kept, and the keys
  /// are what they were.
  __device__ bool add(int k) {
    SampleCounts& s = shared_.sample;
    __syncthreads();
    for (int group = warp(); group < SampleCounts::kBins / kWordBits; group += kSelectionThreads / kWarpSize) {
      const uint32_t sum = __reduce_add_sync(kAllLanes, s.bins[group * kWordBits + lane()]);
      if (lane() == 0) s.groups[group] = sum;
    }
    cluster_barrier();
    if (warp() == 0) find_bin(static_cast<uint32_t>(k));
    __syncthreads();
    // Ranks of as many are counted in the keys' memory.
    const auto candidates = static_cast<int>(shared_.count);
    if (candidates == 0 || candidates > slice_.capacity) return false;
    const uint32_t lowest = low_ + (shared_.digit << shift_);
    keep_and_list(lowest, shared_.digit == kLastBin ? ~0u : lowest + (1u << shift_));
    cluster_barrier();
    return add_candidates(shared_.rank);
  }

 private:
  static constexpr int kBinBits = 9;
  static constexpr uint32_t kLastBin = SampleCounts::kBins - 1;
  static_assert(SampleCounts::kBins == 1 << kBinBits);

  __device__ static int thread() { return RowSelection::thread(); }
  __device__ static int warp() { return RowSelection::warp(); }
  __device__ static int lane() { return RowSelection::lane(); }

  /// Evenly spread.
  __device__ int sampled_column(int i) const {
    return static_cast<int>((2 * i + 1) * int64_t{slice_.row_columns} / (2 * SampleCounts::kSamples));
  }

  /// Of this thread's key in the sample: how many are larger, or as large and from a thread before.
  __device__ int rank_in_sample(uint32_t key) const {
    int rank = 0;
    for (int i = 0; i < SampleCounts::kSamples; ++i) {
      const uint32_t other = shared_.sample.samples[i];
      rank += static_cast<int>(other > key || (other == key && i < thread()));
    }
    return rank;
  }

  /// Run by one warp: the bin of the k-th largest key into shared_.digit, the rank among the keys of that bin, and how
  /// many those are; 0 where the key is below all bins.
  __device__ void find_bin(uint32_t k) {
    constexpr int kGroups = SampleCounts::kBins / kWordBits;
    const SampleCounts& s = shared_.sample;
    // From the largest keys down.
    uint32_t count = lane() < kGroups ? sum_peers(&s.groups[kGroups - 1 - lane()], cluster_blocks()) : 0;
    uint32_t above = warp_scan(count);
    uint32_t reaches = __ballot_sync(kAllLanes, above + count >= k);
    if (reaches == 0) {
      if (lane() == 0) shared_.count = 0;
      return;
    }
    int owner = __ffs(static_cast<int>(reaches)) - 1;
    const int group = kGroups - 1 - owner;
    k -= __shfl_sync(kAllLanes, above, owner);
    const int bin = group * kWordBits + kWordBits - 1 - lane();
    count = sum_peers(&s.bins[bin], cluster_blocks());
    above = warp_scan(count);
    owner = __ffs(static_cast<int>(__ballot_sync(kAllLanes, above + count >= k))) - 1;
    if (lane() == owner) {
      shared_.digit = static_cast<uint32_t>(bin);
      shared_.rank = k - above;
      shared_.count = count;
    }
  }

  /// Keeps the columns with keys from `end` on, and lists those with keys in [lowest, end).
  __device__ void keep_and_list(uint32_t lowest, uint32_t end) {
    for (int base = warp() * kWarpSize; base < slice_.words_count(); base += kSelectionThreads) {
      uint32_t mine = 0;
      const int words = min(kWarpSize, slice_.words_count() - base);
#pragma unroll 4
      for (int i = 0; i < words; ++i) {
        const int column = (base + i) * kWordBits + lane();
        const uint32_t key = slice_.keys[column];
        const uint32_t kept = __ballot_sync(kAllLanes, key >= end);
        const uint32_t listed = __ballot_sync(kAllLanes, key >= lowest) & ~kept;
        if (lane() == i) mine = kept;
        if (listed != 0) list(listed, key, column);
      }
      if (base + lane() < slice_.words_count()) slice_.words[base + lane()] |= mine;
    }
  }

  /// Adds those of the warp's lanes to this block's candidates.
  __device__ void list(uint32_t lanes, uint32_t key, int column) {
    SampleCounts& s = shared_.sample;
    uint32_t first = 0;
    if (lane() == 0) first = atomicAdd(&s.candidates, static_cast<uint32_t>(__popc(lanes)));
    const uint32_t at = __shfl_sync(kAllLanes, first, 0) + __popc(lanes & low_bits(lane()));
    if ((lanes >> lane() & 1) != 0 && at < SampleCounts::kCandidates) {
      s.candidate_keys[at] = key;
      s.candidate_columns[at] = static_cast<uint32_t>(column);
    }
  }

  /// Of all blocks' candidates keeps the first `wanted`. False where they were too many for a block.
  __device__ bool add_candidates(uint32_t wanted) {
    SampleCounts& s = shared_.sample;
    // A lane a block.
    const uint32_t theirs = lane() < cluster_blocks() ? load_peer(&s.candidates, lane()) : 0;
    if (__any_sync(kAllLanes, theirs > SampleCounts::kCandidates)) return false;
    const uint32_t before = warp_scan(theirs);
    const auto mine = static_cast<int>(__shfl_sync(kAllLanes, theirs, cluster_rank()));
    const auto mine_from = static_cast<int>(__shfl_sync(kAllLanes, before, cluster_rank()));
    const auto all = static_cast<int>(__shfl_sync(kAllLanes, before + theirs, kWarpSize - 1));
    for (int peer = warp(); peer < cluster_blocks(); peer += kSelectionThreads / kWarpSize) {
      const auto count = static_cast<int>(__shfl_sync(kAllLanes, theirs, peer));
      uint32_t* keys = slice_.keys + __shfl_sync(kAllLanes, before, peer);
      for (int i = lane(); i < count; i += kWarpSize) keys[i] = load_peer(&s.candidate_keys[i], peer);
    }
    __syncthreads();
    for (int i = warp(); i < mine; i += kSelectionThreads / kWarpSize) {
      const uint32_t key = s.candidate_keys[i], column = s.candidate_columns[i];
      uint32_t better = 0;
      for (int j = lane(); j < all; j += kWarpSize) {
        const uint32_t other = slice_.keys[j];
        // Of equal keys, those of blocks with lower columns come first.
        const bool precedes = j < mine_from || (j < mine_from + mine && s.candidate_columns[j - mine_from] < column);
        better += static_cast<uint32_t>(other > key || (other == key && precedes));
      }
      better = __reduce_add_sync(kAllLanes, better);
      if (lane() == 0 && better < wanted) atomicOr(&slice_.words[column / kWordBits], 1u << column % kWordBits);
    }
    __syncthreads();
    return true;
  }

  SelectionShared& shared_;
  RowSlice slice_;
  uint32_t low_ = 0;
  int shift_ = 0;
};

}  // namespace chipmunk::cuda
