#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

/// Decisions about a launch of a selection, on the host.
namespace chipmunk::cuda {

/// The system keeps some of a multiprocessor's shared memory for itself, for every block.
constexpr size_t kReservedSharedBytes = 1024;

/// What each of several blocks may have, for all of them to share a multiprocessor; most: of a block that has it alone.
inline size_t shared_bytes_of_each(size_t most, int blocks) {
  return (most + kReservedSharedBytes) / static_cast<size_t>(blocks) - kReservedSharedBytes;
}

/// multiple_of in 32 bits: any that is larger than the number of columns means all of them.
inline int int_multiple(int64_t multiple_of, int64_t columns) {
  return static_cast<int>(std::min(multiple_of, columns + 1));
}

/// Bytes of a bit for every column, in words of 32.
inline size_t column_word_bytes(int64_t columns) { return static_cast<size_t>((columns + 31) / 32) * 4; }
/// Those of the columns' keys, for whole words, beside them.
inline size_t stored_row_bytes(int64_t columns) { return column_word_bytes(columns) * 33; }

/// Ranks in the sample of HeldTopK, 0 for the largest.
struct SampleRanks {
  int high, low;

  /// Between them lies the k-th largest of `columns` keys but for three standard deviations.
  static SampleRanks of(int64_t k, int64_t columns, int samples) {
    const double share = static_cast<double>(k) / static_cast<double>(columns), expected = share * samples;
    const double margin = 3.0 * std::sqrt(expected * (1.0 - share)) + 1.0;
    return {static_cast<int>(std::max(expected - margin, 0.0)),
            static_cast<int>(std::min(expected + margin, samples - 1.0))};
  }
};

/// How StreamedTopK looks at a row of sums.
struct StreamPlan {
  int samples;  // 0: the row is too long
  // Ranks in the sample, from 1 for the largest, between which the k-th largest sum of the row nearly always lies; 0
  // where there is no such rank.
  int high_rank, low_rank;
  int candidates;  // sums between the two that there is memory for
  size_t shared_bytes;
};

/// Blocks of StreamedTopK that share a multiprocessor.
constexpr int kStreamBlocks = 2;
/// A candidate's sum and column.
constexpr size_t kCandidateBytes = 8;
/// With memory for fewer, nearly every row would go through the exact search.
constexpr size_t kFewestCandidates = 2048;

/// top_k in [0, columns], of which the ends need no ranks; most: bytes of shared memory that a block may have;
/// counters: those of them that are taken.
inline StreamPlan plan_stream(int64_t columns, int64_t top_k, size_t most, size_t counters) {
  const size_t words = column_word_bytes(columns);
  const auto room = [&](size_t bytes) {
    return bytes < counters + words ? 0 : (bytes - counters - words) / kCandidateBytes;
  };
  size_t candidates = room(shared_bytes_of_each(most, kStreamBlocks));
  // Longer rows have a multiprocessor for themselves.
  if (candidates < kFewestCandidates) candidates = room(most);
  StreamPlan plan{};
  if (candidates < kFewestCandidates) return plan;
  plan.candidates = static_cast<int>(std::min<size_t>(candidates, static_cast<size_t>(columns)));
  plan.shared_bytes = words + static_cast<size_t>(plan.candidates) * kCandidateBytes;
  // Every sample costs a sector of 32 bytes, and leaves a smaller part of the row between the bounds.
  plan.samples = columns <= 65536 ? 512 : 1024;

  const double share = static_cast<double>(top_k) / static_cast<double>(columns);
  const double expected = plan.samples * share;
  // Three standard deviations of how many of the k largest are in the sample; fewer where the sums between would fill
  // more than three quarters of the memory: their number varies.
  const double margin = std::min(3.0 * std::sqrt(expected * (1.0 - share)) + 1.0,
                                 0.375 * plan.candidates * plan.samples / static_cast<double>(columns));
  plan.high_rank = static_cast<int>(std::max(expected - margin, 0.0));
  const double low_rank = std::ceil(expected + margin);
  plan.low_rank = low_rank < plan.samples ? static_cast<int>(low_rank) : 0;
  return plan;
}

/// The longest row that plan_stream takes.
inline int64_t longest_streamed_row(size_t most, size_t counters) {
  const size_t others = counters + kFewestCandidates * kCandidateBytes;
  return most < others ? 0 : static_cast<int64_t>((most - others) / 4 * 32);
}

}  // namespace chipmunk::cuda
