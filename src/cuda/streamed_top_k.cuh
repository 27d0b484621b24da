#pragma once

#include "cuda/row_selection.cuh"
#include "cuda/selection_plan.h"

namespace chipmunk::cuda {

constexpr int kStreamThreads = 512;

/// Finds the k largest sums of a row that one block reads from device memory once, and keeps nowhere but for those near
/// the k-th largest: a sample of the row says between which two that one may lie. The sums above both are among the k
/// largest, those below are not; the candidates between them are listed, and searched afterwards. The result is exact:
/// where the sample was wrong, add() says so. All threads of the block call the same, with the same arguments.
class StreamedTopK {
 public:
  using Selection = RowSelection<kStreamThreads, ScoreKeys>;

  /// candidates: [plan.candidates], in shared memory.
  __device__ StreamedTopK(SelectionShared& shared, Selection& selection, const RowSlice<ScoreKeys>& slice,
                          const StreamPlan& plan, uint2* candidates)
      : s_(shared.stream), found_(shared), selection_(selection), slice_(slice), plan_(plan), candidates_(candidates) {}

  /// Asks for the sample, which add() will want.
  __device__ void load_sample() {
#pragma unroll
    for (int i = 0; i < kOwnSamples; ++i) {
      const int sample = thread() + i * kStreamThreads;
      sampled_[i] = sample < plan_.samples ? slice_.keys.scores[sampled_column(sample)] : 0.0f;
    }
  }

  /// Keeps the k columns with the largest sums too, 0 < k < columns, of equal ones the lower. False where the sample
  /// did not help: then the words are to be set anew.
  __device__ bool add(int k) {
    find_bounds();
    high_ = s_.high;
    low_ = s_.low;
    stream();
    __syncthreads();
    const int wanted = k - static_cast<int>(s_.above);
    const auto candidates = static_cast<int>(s_.candidates);
    if (wanted < 0 || wanted > candidates || candidates > plan_.candidates) return false;
    return wanted == 0 || add_candidates(candidates, static_cast<uint32_t>(wanted));
  }

 private:
  /// Words that a warp reads at a time, so that 32 KB are under way to a block.
  static constexpr int kBatch = 16;
  static constexpr int kOwnSamples = StreamCounts::kSamples / kStreamThreads;
  static constexpr int kBinBits = 11;
  /// The bins are counted off by a quad for each thread.
  static constexpr int kQuads = StreamCounts::kBins / 4;
  static_assert(StreamCounts::kBins == 1 << kBinBits && kQuads == kStreamThreads);
  static_assert(StreamCounts::kListed <= kStreamThreads, "a thread ranks a listed candidate");

  __device__ static int thread() { return Selection::thread(); }
  __device__ static int warp() { return Selection::warp(); }
  __device__ static int lane() { return Selection::lane(); }

  __device__ uint4* bin_quads() { return reinterpret_cast<uint4*>(s_.bins); }

  /// One of each of as many equal parts of the row, but not always the same one of them: rows repeat themselves.
  __device__ int sampled_column(int sample) const {
    const auto columns = static_cast<uint32_t>(slice_.row_columns), samples = static_cast<uint32_t>(plan_.samples);
    const uint32_t first = static_cast<uint32_t>(sample) * columns / samples;
    // The fractions of multiples of the golden ratio are spread evenly.
    return static_cast<int>(first + __umulhi(static_cast<uint32_t>(sample) * 0x9E3779B9u, columns / samples));
  }

  /// The bounds of the candidates from the sample; clears the counters.
  __device__ void find_bounds() {
#pragma unroll
    for (int i = 0; i < kOwnSamples; ++i) {
      const int sample = thread() + i * kStreamThreads;
      // 0 is below every key that is asked for.
      s_.samples[sample] = sample < plan_.samples ? order_key(sampled_[i]) : 0;
    }
    bin_quads()[thread()] = {};
    if (thread() == 0) {
      s_.above = 0;
      s_.candidates = 0;
      s_.listed = 0;
    }
    __syncthreads();
    if (warp() == 0) {
      const float high = plan_.high_rank > 0 ? score_of(find_sample(plan_.high_rank)) : INFINITY;
      if (lane() == 0) s_.high = high;
    } else if (warp() == 1) {
      const float low = plan_.low_rank > 0 ? score_of(find_sample(plan_.low_rank)) : -INFINITY;
      if (lane() == 0) s_.low = low;
    }
    __syncthreads();
  }

  /// A score that has the key, or, where none has, the place among all others that the key has.
  __device__ static float score_of(uint32_t key) {
    return __uint_as_float((key & 0x80000000u) != 0 ? key ^ 0x80000000u : ~key);
  }

  /// Run by one warp: a key that exactly `rank` samples reach, or else that of the rank-th largest sample. There are
  /// more samples than `rank`, so the key is not below all of them and stands for no NaN.
  __device__ uint32_t find_sample(int rank) const {
    uint32_t keys[StreamCounts::kSamples / kWarpSize];
#pragma unroll
    for (int i = 0; i < StreamCounts::kSamples / kWarpSize; ++i) keys[i] = s_.samples[i * kWarpSize + lane()];
    uint32_t found = 0;
#pragma unroll 1
    for (uint32_t bit = 0x80000000u; bit != 0; bit >>= 1) {
      const uint32_t key = found | bit;
      int reach = 0;
#pragma unroll
      for (int i = 0; i < StreamCounts::kSamples / kWarpSize; ++i) reach += static_cast<int>(keys[i] >= key);
      reach = __reduce_add_sync(kAllLanes, reach);
      if (reach >= rank) found = key;
      if (reach == rank) break;
    }
    return found;
  }

  /// Keeps the columns above the bounds, and lists those between them.
  __device__ void stream() {
    constexpr int kWarps = kStreamThreads / kWarpSize;
    const int whole_batches = slice_.columns / (kBatch * kWordBits);
    // From one lane, so that the compiler knows that a warp's lanes go through the loop together.
    const int uniform_warp = __shfl_sync(kAllLanes, warp(), 0);
    int above = 0;
#pragma unroll 1
    for (int batch = uniform_warp; batch < whole_batches; batch += kWarps) above += stream_words<true>(batch * kBatch);
    const int rest = whole_batches * kBatch;
    if (rest < slice_.words_count() && uniform_warp == whole_batches % kWarps) above += stream_words<false>(rest);
    above = __reduce_add_sync(kAllLanes, above);
    if (lane() == 0) atomicAdd(&s_.above, static_cast<uint32_t>(above));
  }

  /// Those of kBatch words; returns how many columns above the bounds the lane's word has. kWhole: all are columns.
  template <bool kWhole>
  __device__ int stream_words(int first) {
    const int column = first * kWordBits + lane();
    const float* sums = slice_.keys.scores + column;
    // Word i has a column for this lane if 32 i is below.
    const int left = kWhole ? kBatch * kWordBits : slice_.columns - column;
    float scores[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      // Hardly any is read again.
      scores[i] = i * kWordBits < left ? __ldcs(sums + i * kWordBits) : 0.0f;
    }
    uint32_t words[kBatch];
    uint32_t listed = 0;  // bit i: this lane's column of word i is a candidate
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const bool is_column = i * kWordBits < left;
      // NaN counts as -infinity. Otherwise floats compare as their keys do.
      scores[i] = fmaxf(scores[i], -INFINITY);
      const bool is_above = is_column && scores[i] > high_;
      words[i] = __ballot_sync(kAllLanes, is_above);
      if (is_column && !is_above && scores[i] >= low_) listed |= 1u << i;
    }
    const uint32_t word = own_word(words);
    int above = 0;
    if (lane() < kBatch && (kWhole || first + lane() < slice_.words_count())) {
      slice_.words[first + lane()] |= word;
      above = __popc(word);
    }
    list(scores, listed, column);
    return above;
  }

  /// words[lane() % kBatch], by halves: fewer instructions than to compare the lane with every index.
  __device__ static uint32_t own_word(uint32_t (&words)[kBatch]) {
#pragma unroll
    for (int step = 1; step < kBatch; step *= 2) {
#pragma unroll
      for (int i = 0; i < kBatch; i += 2 * step) words[i] = (lane() & step) != 0 ? words[i + step] : words[i];
    }
    return words[0];
  }

  /// Adds the lane's columns column + 32 i, for the bits i of `listed`, to the candidates, in any order.
  __device__ void list(const float (&scores)[kBatch], uint32_t listed, int column) {
    const auto own = static_cast<uint32_t>(__popc(listed));
    const uint32_t before = warp_scan(own);
    const uint32_t end = before + own;
    uint32_t at = 0;
    if (lane() == kWarpSize - 1 && end != 0) at = atomicAdd(&s_.candidates, end);
    at = __shfl_sync(kAllLanes, at, kWarpSize - 1);
    // Where they do not fit, their number tells.
    if (at + __shfl_sync(kAllLanes, end, kWarpSize - 1) > static_cast<uint32_t>(plan_.candidates)) return;
    uint32_t next = shared_address(candidates_ + at + before);
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      append(next, listed & 1u << i, scores[i], column + i * kWordBits);
    }
  }

  /// Where `listed` is not 0, stores a candidate at the address in shared memory and advances that. In C++ it would
  /// take twice the instructions.
  __device__ static void append(uint32_t& address, uint32_t listed, float score, int column) {
    asm volatile(
        "{\n.reg .pred is_listed;\nsetp.ne.u32 is_listed, %1, 0;\n@is_listed st.shared.v2.b32 [%0], {%2, %3};\n"
        "@is_listed add.u32 %0, %0, 8;\n}\n"
        : "+r"(address)
        : "r"(listed), "r"(__float_as_uint(score)), "r"(column)
        : "memory");
  }

  /// Keeps the `wanted` largest of the candidates, 0 < wanted <= count, of equal ones the lower. False where too many
  /// are equal.
  __device__ bool add_candidates(int count, uint32_t wanted) {
    // Keys from `lowest` on that exceed it by no more than low_bits(bits) are still to be told apart.
    uint32_t lowest = order_key(low_);
    int bits = kWordBits - __clz(static_cast<int>(order_key(high_) - lowest));
    uint32_t left;
    do {
      const int shift = max(bits - kBinBits, 0);
      for (int i = thread(); i < count; i += kStreamThreads) {
        const uint32_t key = candidate_key(i), excess = key - lowest;
        if (key >= lowest && excess <= low_bits(bits)) atomicAdd(&s_.bins[excess >> shift], 1u);
      }
      __syncthreads();
      find_bin(wanted);
      __syncthreads();
      lowest += found_.digit << shift;
      wanted = found_.rank;
      left = found_.count;
      bits = shift;
    } while (left > StreamCounts::kListed && bits > 0);
    if (left > StreamCounts::kListed) return false;

    for (int i = thread(); i < count; i += kStreamThreads) {
      const uint32_t key = candidate_key(i), column = candidates_[i].y;
      if (key < lowest) continue;
      if (key - lowest > low_bits(bits)) {
        keep(column);
      } else {
        const uint32_t at = atomicAdd(&s_.listed, 1u);
        s_.listed_keys[at] = key;
        s_.listed_columns[at] = column;
      }
    }
    __syncthreads();
    if (thread() < static_cast<int>(left)) {
      const uint32_t key = s_.listed_keys[thread()], column = s_.listed_columns[thread()];
      uint32_t better = 0;
      for (uint32_t i = 0; i < left; ++i) {
        const uint32_t other = s_.listed_keys[i];
        better += static_cast<uint32_t>(other > key || (other == key && s_.listed_columns[i] < column));
      }
      if (better < wanted) keep(column);
    }
    __syncthreads();
    return true;
  }

  __device__ uint32_t candidate_key(int i) const { return order_key(__uint_as_float(candidates_[i].x)); }
  __device__ void keep(uint32_t column) { atomicOr(&slice_.words[column / kWordBits], 1u << column % kWordBits); }

  /// The bin of the k-th largest key counted, the rank among the keys of that bin, and how many those are; clears the
  /// bins.
  __device__ void find_bin(uint32_t k) {
    // From the largest keys down.
    const int quad = kQuads - 1 - thread();
    const uint4 bins = bin_quads()[quad];
    bin_quads()[quad] = {};
    const uint32_t counts[4] = {bins.w, bins.z, bins.y, bins.x};
    const uint32_t sum = bins.x + bins.y + bins.z + bins.w;
    int all;
    auto above = static_cast<uint32_t>(selection_.scan(static_cast<int>(sum), &all));
    if (above >= k || above + sum < k) return;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (above < k && k <= above + counts[i]) {
        found_.digit = static_cast<uint32_t>(quad * 4 + 3 - i);
        found_.rank = k - above;
        found_.count = counts[i];
      }
      above += counts[i];
    }
  }

  StreamCounts& s_;
  SelectionShared& found_;  // digit, rank, count
  Selection& selection_;
  RowSlice<ScoreKeys> slice_;
  const StreamPlan& plan_;
  uint2* candidates_;  // sum, column
  float sampled_[kOwnSamples];
  float low_, high_;
};

}  // namespace chipmunk::cuda
