#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/cluster.cuh"
#include "cuda/cuda_device.h"
#include "cuda/cuda_error.h"
#include "cuda/launch.h"

/// The exact selection of core/column_selection.h. A row of scores belongs to a cluster of blocks, which have a slice
/// of it each: its scores as keys, and the columns kept as bits.
namespace chipmunk::cuda {

/// Of blocks that hold their keys in shared memory.
constexpr int kSelectionThreads = 256;
/// As many of these share a multiprocessor, so that some wait for memory while others compute.
constexpr int kSelectionBlocks = 3;
constexpr int kMaxSelectionThreads = 512;
constexpr int kWordBits = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;

/// Larger scores have larger keys. Equal scores have equal ones, so 0 has that of -0, and NaN has that of -infinity.
/// 0 is no score's key.
__device__ inline uint32_t order_key(float score) {
  // Of two operands fmaxf takes the one that is a number; -0 + 0 is 0.
  const uint32_t bits = __float_as_uint(fmaxf(score, -INFINITY) + 0.0f);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

/// The first `count` bits of a word.
__device__ inline uint32_t low_bits(int count) { return count >= kWordBits ? ~0u : (1u << count) - 1; }

/// Of a search for the k-th largest key by digits of 11, 10 and 11 bits, from the highest in which the row's keys
/// differ: how often each occurs is counted in bins, whose sums over kWordBits of them are the groups.
struct DigitCounts {
  static constexpr int kWideBins = 2048, kNarrowBins = 1024;
  static constexpr int kGroups = kWideBins / kWordBits;

  // Peers still read what a digit left behind while the next is counted, so neighbouring ones have different memory.
  uint32_t wide_bins[kWideBins];
  uint32_t narrow_bins[kNarrowBins];
  uint32_t groups[2][kGroups];
};

/// Of SampledTopK: counts of keys from the lowest one of interest on, and those that share the k-th largest one's bin.
struct SampleCounts {
  static constexpr int kSamples = 64, kBins = 512, kCandidates = 128;

  uint32_t samples[kSamples];
  uint32_t low, high;
  uint32_t bins[kBins];
  uint32_t groups[kBins / kWordBits];
  uint32_t candidates;
  uint32_t candidate_keys[kCandidates], candidate_columns[kCandidates];
};

/// Of StreamedTopK: the bounds that its sample gives, and counts of what lies between and above them.
struct StreamCounts {
  static constexpr int kSamples = 1024, kBins = 2048, kListed = 512;

  uint32_t bins[kBins];
  // The sample is of no more use when the last candidates are listed.
  union {
    uint32_t samples[kSamples];
    struct {
      uint32_t listed_keys[kListed], listed_columns[kListed];
    };
  };
  float low, high;
  uint32_t above, candidates, listed;
};

/// What a block needs of shared memory besides keys and words.
struct alignas(16) SelectionShared {
  // One search after the other; between them lies a barrier.
  union {
    DigitCounts digits;
    SampleCounts sample;
    StreamCounts stream;
  };
  uint32_t exchanged[2];
  uint32_t warp_sums[kMaxSelectionThreads / kWarpSize];
  // Of this block's keys.
  uint32_t smallest, largest;
  // The digit, or bin, of the k-th largest key; its rank among the keys that share it; how many do.
  uint32_t digit, rank, count;
};

/// Lets a kernel that has a SelectionShared use all shared memory besides. Always the most that any row wants: another
/// thread may be launching the same kernel.
inline void allow_shared_memory(const void* kernel, const DeviceProperties& device, const char* what) {
  const auto most = static_cast<int>(device.shared_memory_per_block - sizeof(SelectionShared));
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most), what);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
        what);
}

/// The sum of x over the lanes before this one.
__device__ inline uint32_t warp_scan(uint32_t x) {
  uint32_t inclusive = x;
#pragma unroll
  for (int offset = 1; offset < kWarpSize; offset *= 2) {
    const uint32_t below = __shfl_up_sync(kAllLanes, inclusive, offset);
    if (static_cast<int>(threadIdx.x) % kWarpSize >= offset) inclusive += below;
  }
  return inclusive - x;
}

/// Keys in shared memory, aligned to 16 bytes.
struct StoredKeys {
  uint32_t* data;

  __device__ uint32_t& operator[](int column) const { return data[column]; }

  /// Calls body with the first `count` keys, in any order, each in one of the block's threads.
  template <int kThreads, class Body>
  __device__ void for_each(int count, Body body) const {
    const auto thread = static_cast<int>(threadIdx.x);
    const int quads = count / 4;
#pragma unroll 2
    for (int i = thread; i < quads; i += kThreads) {
      const uint4 quad = reinterpret_cast<const uint4*>(data)[i];
      body(quad.x);
      body(quad.y);
      body(quad.z);
      body(quad.w);
    }
    for (int i = quads * 4 + thread; i < count; i += kThreads) body(data[i]);
  }
};

/// The keys of scores that stay in device memory: every use reads them again.
struct ScoreKeys {
  const float* scores;

  __device__ uint32_t operator[](int column) const { return order_key(scores[column]); }

  template <int kThreads, class Body>
  __device__ void for_each(int count, Body body) const {
#pragma unroll 8
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) body((*this)[i]);
  }
};

/// A block's slice of a row.
template <class Keys>
struct RowSlice {
  Keys keys;        // [columns]
  uint32_t* words;  // [words_count()]: bit i of word w for column 32 w + i
  int row_columns;
  int first, columns;  // of the row's

  __device__ int words_count() const { return (columns + kWordBits - 1) / kWordBits; }
  __device__ bool keeps(int column) const { return (words[column / kWordBits] >> column % kWordBits & 1) != 0; }
  /// The bits of a word that stand for a column.
  __device__ uint32_t valid(int word) const { return low_bits(max(0, columns - word * kWordBits)); }
};

/// The steps of a selection. All threads of all blocks of a cluster call the same, with the same arguments.
template <int kThreads, class Keys>
class RowSelection {
  static_assert(kThreads <= kMaxSelectionThreads);

 public:
  /// A number of every block of the row added up: over the blocks with lower columns, and over all of them.
  struct Total {
    int before, all;
  };

  __device__ RowSelection(SelectionShared& shared, const RowSlice<Keys>& slice) : shared_(shared), slice_(slice) {}

  /// words = word_of(i), of which bits without a column do not count. A word belongs to one thread until a barrier.
  template <class WordOf>
  __device__ void set_words(WordOf word_of) {
    for (int w = thread(); w < slice_.words_count(); w += kThreads) {
      slice_.words[w] = word_of(w) & slice_.valid(w);
    }
  }
  template <class WordOf>
  __device__ void add_words(WordOf word_of) {
    set_words([&](int w) { return slice_.words[w] | word_of(w); });
  }

  /// How many columns are kept.
  __device__ Total count_kept() {
    int mine = 0;
    for (int w = thread(); w < slice_.words_count(); w += kThreads) mine += __popc(slice_.words[w]);
    int here;
    scan(mine, &here);
    return exchange(here);
  }

  /// Keeps the k columns with the largest keys too, of equal ones the lower. At least k of the row's keys are not 0;
  /// those that are do not take part. Between two calls lies a count_kept(): peers may still be in the search of the
  /// first.
  __device__ void add_top_k(int k) {
    if (k > 0) add_largest(find_threshold(static_cast<uint32_t>(k)));
  }

  /// The largest keys of a row are those from `lowest` on; or, where ties > 0, those and the first `ties` that are
  /// lowest - 1.
  struct Threshold {
    uint32_t lowest;
    int ties;
  };
  /// Keeps the columns with the largest keys too.
  __device__ void add_largest(Threshold threshold) {
    for (int base = warp() * kWarpSize; base < slice_.words_count(); base += kThreads) {
      const uint32_t word = collect(base, [&](uint32_t key) { return key >= threshold.lowest; });
      if (base + lane() < slice_.words_count()) slice_.words[base + lane()] |= word;
    }
    if (threshold.ties > 0) add_ties(threshold);
  }

  /// How many columns the kept ones lack of a multiple of multiple_of; at most all others.
  __device__ int missing_columns(Total kept, int multiple_of) const {
    const int beyond = kept.all % multiple_of;
    return beyond == 0 ? 0 : min(multiple_of - beyond, slice_.row_columns - kept.all);
  }

  /// Writes the columns kept, ascending, then the lowest others until there is a multiple of multiple_of; and their
  /// number, or that of all columns where they do not fit.
  __device__ void write(Total kept, int multiple_of, int64_t capacity, int32_t* indices, int32_t* count) {
    const int missing = missing_columns(kept, multiple_of);
    const int padded = kept.all + missing;
    if (cluster_rank() == 0 && thread() == 0) *count = padded > capacity ? slice_.row_columns : padded;
    if (padded > capacity) return;
    write_ranks(kept.before, kept.all, indices, [&](int w) { return slice_.words[w]; });
    const int others_before = slice_.first - kept.before;
    if (others_before >= missing) return;
    write_ranks(others_before, missing, indices + kept.all, [&](int w) { return ~slice_.words[w] & slice_.valid(w); });
  }

  /// The sum of x over the threads before this one, and over all of the block.
  __device__ int scan(int x, int* total) {
    const auto before_in_warp = static_cast<int>(warp_scan(static_cast<uint32_t>(x)));
    if (lane() == kWarpSize - 1) shared_.warp_sums[warp()] = static_cast<uint32_t>(before_in_warp + x);
    __syncthreads();
    const uint32_t sum = lane() < kThreads / kWarpSize ? shared_.warp_sums[lane()] : 0;
    __syncthreads();
    const uint32_t before = warp_scan(sum);
    *total = static_cast<int>(__shfl_sync(kAllLanes, before + sum, kWarpSize - 1));
    return static_cast<int>(__shfl_sync(kAllLanes, before, warp())) + before_in_warp;
  }

  __device__ static int thread() { return static_cast<int>(threadIdx.x); }
  __device__ static int warp() { return thread() / kWarpSize; }
  __device__ static int lane() { return thread() % kWarpSize; }

 private:
  __device__ Total exchange(int mine) {
    // Two places in turn: a peer may still be reading the last one.
    turn_ ^= 1;
    if (thread() == 0) shared_.exchanged[turn_] = static_cast<uint32_t>(mine);
    cluster_barrier();
    // A lane a block.
    const uint32_t value = lane() < cluster_blocks() ? load_peer(&shared_.exchanged[turn_], lane()) : 0;
    const uint32_t before = warp_scan(value);
    return {static_cast<int>(__shfl_sync(kAllLanes, before, cluster_rank())),
            static_cast<int>(__shfl_sync(kAllLanes, before + value, kWarpSize - 1))};
  }

  /// In lane i, the word base + i of the columns whose keys fulfil the condition.
  template <class Condition>
  __device__ uint32_t collect(int base, Condition condition) const {
    uint32_t mine = 0;
    const int words = min(kWarpSize, slice_.words_count() - base);
#pragma unroll 4
    for (int i = 0; i < words; ++i) {
      const int column = (base + i) * kWordBits + lane();
      const uint32_t word = __ballot_sync(kAllLanes, column < slice_.columns && condition(slice_.keys[column]));
      if (lane() == i) mine = word;
    }
    return mine;
  }

  struct Range {
    uint32_t smallest, largest;
  };

  /// Of the whole row's keys.
  __device__ Range key_range() {
    if (thread() == 0) {
      shared_.smallest = ~0u;
      shared_.largest = 0;
    }
    __syncthreads();
    uint32_t smallest = ~0u, largest = 0;
    slice_.keys.template for_each<kThreads>(slice_.columns, [&](uint32_t key) {
      smallest = min(smallest, key);
      largest = max(largest, key);
    });
    smallest = __reduce_min_sync(kAllLanes, smallest);
    largest = __reduce_max_sync(kAllLanes, largest);
    if (lane() == 0) {
      atomicMin(&shared_.smallest, smallest);
      atomicMax(&shared_.largest, largest);
    }
    cluster_barrier();
    // A lane a block.
    const bool has_peer = lane() < cluster_blocks();
    smallest = has_peer ? load_peer(&shared_.smallest, lane()) : ~0u;
    largest = has_peer ? load_peer(&shared_.largest, lane()) : 0;
    return {__reduce_min_sync(kAllLanes, smallest), __reduce_max_sync(kAllLanes, largest)};
  }

  /// Counts, over the whole row, how often each digit occurs among the keys that agree with the prefix; both are of
  /// what keys exceed `smallest` by.
  __device__ void count_digits(uint32_t* bins, int num_bins, uint32_t* groups, uint32_t smallest, int shift,
                               uint32_t prefix, uint32_t prefix_mask) {
    for (int i = thread(); i < num_bins; i += kThreads) bins[i] = 0;
    __syncthreads();
    slice_.keys.template for_each<kThreads>(slice_.columns, [&](uint32_t key) {
      const uint32_t excess = key - smallest;
      if (((excess ^ prefix) & prefix_mask) == 0) atomicAdd(&bins[excess >> shift & (num_bins - 1)], 1u);
    });
    __syncthreads();
    for (int group = warp(); group < DigitCounts::kGroups; group += kThreads / kWarpSize) {
      const int bin = group * kWordBits + lane();
      const uint32_t sum = __reduce_add_sync(kAllLanes, bin < num_bins ? bins[bin] : 0);
      if (lane() == 0) groups[group] = sum;
    }
    cluster_barrier();
  }

  /// Run by one warp: finds the digit of the k-th largest of the keys counted.
  __device__ void find_digit(const uint32_t* bins, const uint32_t* groups, uint32_t k) {
    // From the largest digits down, a lane has two groups.
    const int upper_group = DigitCounts::kGroups - 1 - 2 * lane();
    const uint32_t upper = sum_peers(groups + upper_group, cluster_blocks());
    const uint32_t lower = sum_peers(groups + upper_group - 1, cluster_blocks());
    uint32_t above = warp_scan(upper + lower);
    int owner = __ffs(static_cast<int>(__ballot_sync(kAllLanes, above + upper + lower >= k))) - 1;
    const bool in_lower = above + upper < k;
    const int group = __shfl_sync(kAllLanes, upper_group - (in_lower ? 1 : 0), owner);
    k -= __shfl_sync(kAllLanes, above + (in_lower ? upper : 0), owner);

    const int bin = group * kWordBits + kWordBits - 1 - lane();
    const uint32_t count = sum_peers(bins + bin, cluster_blocks());
    above = warp_scan(count);
    owner = __ffs(static_cast<int>(__ballot_sync(kAllLanes, above + count >= k))) - 1;
    if (lane() == owner) {
      shared_.digit = static_cast<uint32_t>(bin);
      shared_.rank = k - above;
      shared_.count = count;
    }
  }

  __device__ Threshold find_threshold(uint32_t k) {
    const Range range = key_range();
    // The higher bits are all keys' own: counting those would send everything into a few bins.
    const int bits = kWordBits - __clz(static_cast<int>(range.largest - range.smallest));
    uint32_t prefix = 0, prefix_mask = 0;
    int shift = bits;
#pragma unroll 1
    for (int turn = 0; turn == 0 || shift > 0; ++turn) {
      const bool narrow = turn == 1;
      const int num_bins = narrow ? DigitCounts::kNarrowBins : DigitCounts::kWideBins;
      shift = max(shift - (narrow ? 10 : 11), 0);
      uint32_t* bins = narrow ? shared_.digits.narrow_bins : shared_.digits.wide_bins;
      uint32_t* groups = shared_.digits.groups[turn % 2];
      count_digits(bins, num_bins, groups, range.smallest, shift, prefix, prefix_mask);
      if (warp() == 0) find_digit(bins, groups, k);
      __syncthreads();
      // Where fewer bits were left than a digit has, those above are the prefix's.
      prefix |= shared_.digit << shift;
      prefix_mask = ~0u << shift;
      k = shared_.rank;
      // All keys with this prefix belong to the k largest: their other digits do not matter.
      if (k == shared_.count) return {range.smallest + prefix, 0};
    }
    // This is the k-th largest key itself. No score has a key of ones alone, so adding 1 does not overflow.
    return {range.smallest + prefix + 1, static_cast<int>(k)};
  }

  /// Keeps the first ones of the columns that have the key below the threshold.
  __device__ void add_ties(Threshold threshold) {
    const auto is_tie = [&](uint32_t key) { return key == threshold.lowest - 1; };
    int mine = 0, here;
    for (int base = warp() * kWarpSize; base < slice_.words_count(); base += kThreads) {
      mine += __popc(collect(base, is_tie));
    }
    scan(mine, &here);
    int before = exchange(here).before;
    for (int first = 0; first < slice_.words_count(); first += kThreads) {
      uint32_t word = collect(first + warp() * kWarpSize, is_tie);
      int sum;
      const int wanted = threshold.ties - before - scan(__popc(word), &sum);
      before += sum;
      // From the highest on, those that are too many.
      while (__popc(word) > max(wanted, 0)) word ^= 0x80000000u >> __clz(static_cast<int>(word));
      const int w = first + thread();
      if (w < slice_.words_count()) slice_.words[w] |= word;
    }
  }

  /// Writes the columns of the words' bits to out[rank], for ranks below `end`; the first one's is `rank`. Keys that
  /// are stored are gone then: the columns take their place, from where they leave side by side.
  template <class WordOf>
  __device__ void write_ranks(int rank, int end, int32_t* out, WordOf word_of) {
    constexpr bool kStaged = std::is_same_v<Keys, StoredKeys>;
    const int first_rank = rank;
    if constexpr (kStaged) __syncthreads();
    for (int first = 0; first < slice_.words_count() && rank < end; first += kThreads) {
      const int w = first + thread();
      uint32_t word = w < slice_.words_count() ? word_of(w) : 0;
      int sum;
      int at = rank + scan(__popc(word), &sum);
      rank += sum;
      for (; word != 0 && at < end; word &= word - 1, ++at) {
        const int column = slice_.first + w * kWordBits + __ffs(static_cast<int>(word)) - 1;
        if constexpr (kStaged) {
          slice_.keys[at - first_rank] = static_cast<uint32_t>(column);
        } else {
          out[at] = column;
        }
      }
    }
    if constexpr (kStaged) {
      __syncthreads();
      for (int i = thread(); i < min(rank, end) - first_rank; i += kThreads) {
        out[first_rank + i] = static_cast<int32_t>(slice_.keys[i]);
      }
    }
  }

  SelectionShared& shared_;
  RowSlice<Keys> slice_;
  int turn_ = 0;
};

}  // namespace chipmunk::cuda
