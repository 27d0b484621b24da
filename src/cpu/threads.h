#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace chipmunk::cpu {

/// Calls body(index, worker) for every index in [0, count) on up to `threads` threads; worker is in [0, threads).
/// Which worker gets which index varies from run to run, so the result of an index must not depend on it.
/// body must not throw.
template <class Body>
void parallel_for(int threads, int64_t count, const Body& body) {
  const int used = static_cast<int>(std::min<int64_t>(threads, count));
  if (used <= 1) {
    for (int64_t i = 0; i < count; ++i) body(i, 0);
    return;
  }
  // Dynamic: on a machine that others use too, a static share waits for the slowest core.
#pragma omp parallel for num_threads(used) schedule(dynamic, 1)
  for (int64_t i = 0; i < count; ++i) body(i, omp_get_thread_num());
}

/// Calls body(begin, end) for ranges that cover [0, rows), in parallel where there is enough to do.
template <class Body>
void parallel_rows(int threads, int64_t rows, int64_t elements_per_row, const Body& body) {
  // Waking a thread costs some microseconds: the time of about 16,384 elements.
  constexpr int64_t kMinElements = 16384;
  const int64_t step = std::max<int64_t>(1, kMinElements / std::max<int64_t>(1, elements_per_row));
  const int64_t ranges = std::min<int64_t>((rows + step - 1) / step, int64_t{8} * threads);
  if (ranges <= 1) {
    if (rows > 0) body(int64_t{0}, rows);
    return;
  }
  parallel_for(threads, ranges, [&](int64_t i, int) { body(rows * i / ranges, rows * (i + 1) / ranges); });
}

/// While it lives, OpenMP regions that the calling thread opens inside of a library (oneDNN) use `threads` threads.
class ThreadScope {
 public:
  explicit ThreadScope(int threads) : previous_(omp_get_max_threads()) { omp_set_num_threads(threads); }
  ~ThreadScope() { omp_set_num_threads(previous_); }
  ThreadScope(const ThreadScope&) = delete;
  ThreadScope& operator=(const ThreadScope&) = delete;

 private:
  int previous_;
};

}  // namespace chipmunk::cpu
