#pragma once

#include "cuda/row_selection.cuh"

namespace chipmunk::cuda {

/// Finds the k largest keys of a row, all of which one block holds, with fewer passes over them and fewer barriers than
/// RowSelection::add_top_k(): a sample of the row says between which keys the k-th largest may lie, and bins of those
/// are counted, then bins of the bin that it is in, until few or equal keys are left. The result is exact: where the
/// sample was wrong, add_top_k() finds it. All threads of the block call the same, with the same arguments: sample(),
/// count() for every key, add().
template <int kThreads>
class SampledTopK {
 public:
  using Slice = RowSlice<StoredKeys>;

  __device__ SampledTopK(SelectionShared& shared, const Slice& slice) : shared_(shared), slice_(slice) {}

  /// key_of(column) is the key of any column of the row.
  template <class KeyOf>
  __device__ void sample(int k, KeyOf key_of) {
    SampleCounts& s = shared_.sample;
    constexpr int kSamples = SampleCounts::kSamples;
    if (thread() < kSamples) s.samples[thread()] = key_of(sampled_column(thread()));
    start_counting();
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
  /// 0.
  __device__ void add(int k, RowSelection<kThreads, StoredKeys>& selection) {
    __syncthreads();
    Bin bin = find_bin(static_cast<uint32_t>(k));
    if (bin.count == 0) return selection.add_top_k(k);
    uint32_t lowest = low_ + (bin.number << shift_);
    const uint32_t behind = lowest + (1u << shift_);
    // The last bin has no upper end, nor has one that reaches beyond all integers; no key is ~0.
    const bool is_open = bin.number == kLastBin || behind < lowest;
    if (bin.count > SampleCounts::kCandidates && is_open) return selection.add_top_k(k);
    uint32_t end = is_open ? ~0u : behind;
    while (bin.count > SampleCounts::kCandidates && bin.rank < bin.count && shift_ > 0) {
      const uint32_t width = end - lowest;
      shift_ = max(shift_ - kBinBits, 0);
      start_counting();
      __syncthreads();
      slice_.keys.template for_each<kThreads>(slice_.columns, [&](uint32_t key) {
        if (key - lowest < width) atomicAdd(&shared_.sample.bins[(key - lowest) >> shift_], 1u);
      });
      __syncthreads();
      bin = find_bin(bin.rank);
      lowest += bin.number << shift_;
      end = lowest + (1u << shift_);
    }
    if (bin.rank == bin.count) return selection.add_largest({lowest, 0});
    if (bin.count > SampleCounts::kCandidates) return selection.add_largest({end, static_cast<int>(bin.rank)});
    keep_and_list(lowest, end);
    __syncthreads();
    add_candidates(static_cast<int>(bin.count), bin.rank);
    __syncthreads();
  }

 private:
  static constexpr int kBinBits = 9;
  static constexpr uint32_t kLastBin = SampleCounts::kBins - 1;
  static_assert(SampleCounts::kBins == 1 << kBinBits);

  __device__ static int thread() { return static_cast<int>(threadIdx.x); }
  __device__ static int warp() { return thread() / kWarpSize; }
  __device__ static int lane() { return thread() % kWarpSize; }

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

  __device__ void start_counting() {
    for (int i = thread(); i < SampleCounts::kBins; i += kThreads) shared_.sample.bins[i] = 0;
  }

  struct Bin {
    uint32_t number;
    uint32_t rank, count;  // of the k-th largest key among the bin's, and how many those are
  };

  /// The bin of the k-th largest key; a count of 0 where that is below all bins.
  __device__ Bin find_bin(uint32_t k) {
    SampleCounts& s = shared_.sample;
    for (int group = warp(); group < SampleCounts::kBins / kWordBits; group += kThreads / kWarpSize) {
      const uint32_t sum = __reduce_add_sync(kAllLanes, s.bins[group * kWordBits + lane()]);
      if (lane() == 0) s.groups[group] = sum;
    }
    __syncthreads();
    if (warp() == 0) search_bins(k);
    __syncthreads();
    return {shared_.digit, shared_.rank, shared_.count};
  }

  /// Run by one warp: the same into shared_.digit, rank and count.
  __device__ void search_bins(uint32_t k) {
    constexpr int kGroups = SampleCounts::kBins / kWordBits;
    const SampleCounts& s = shared_.sample;
    // From the largest keys down.
    uint32_t count = lane() < kGroups ? s.groups[kGroups - 1 - lane()] : 0;
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
    count = s.bins[bin];
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
    for (int base = warp() * kWarpSize; base < slice_.words_count(); base += kThreads) {
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

  /// Adds those of the warp's lanes to the candidates.
  __device__ void list(uint32_t lanes, uint32_t key, int column) {
    SampleCounts& s = shared_.sample;
    uint32_t first = 0;
    if (lane() == 0) first = atomicAdd(&s.candidates, static_cast<uint32_t>(__popc(lanes)));
    const uint32_t at = __shfl_sync(kAllLanes, first, 0) + __popc(lanes & low_bits(lane()));
    if ((lanes >> lane() & 1) != 0) {
      s.candidate_keys[at] = key;
      s.candidate_columns[at] = static_cast<uint32_t>(column);
    }
  }

  /// Keeps the first `wanted` of the candidates.
  __device__ void add_candidates(int count, uint32_t wanted) {
    const SampleCounts& s = shared_.sample;
    for (int i = warp(); i < count; i += kThreads / kWarpSize) {
      const uint32_t key = s.candidate_keys[i], column = s.candidate_columns[i];
      uint32_t better = 0;
      for (int j = lane(); j < count; j += kWarpSize) {
        const uint32_t other = s.candidate_keys[j];
        better += static_cast<uint32_t>(other > key || (other == key && s.candidate_columns[j] < column));
      }
      better = __reduce_add_sync(kAllLanes, better);
      if (lane() == 0 && better < wanted) atomicOr(&slice_.words[column / kWordBits], 1u << column % kWordBits);
    }
  }

  SelectionShared& shared_;
  Slice slice_;
  uint32_t low_ = 0;
  int shift_ = 0;
};

}  // namespace chipmunk::cuda
