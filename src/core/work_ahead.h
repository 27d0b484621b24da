#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace chipmunk {

/// Threads that do the parts of some work, lowest first, ahead of the one thread that takes their results in order. For
/// work that waits for memory or files; what computes is parallel in its backend.
class WorkAhead {
 public:
  /// work(part) runs once for each part in [0, count) that is allowed, on any thread; it must not throw.
  WorkAhead(size_t count, std::function<void(size_t part)> work);
  /// Waits for the parts that are being done; those that are not begun never are.
  ~WorkAhead();
  WorkAhead(const WorkAhead&) = delete;
  WorkAhead& operator=(const WorkAhead&) = delete;

  /// Parts below `end` may be done.
  void allow(size_t end);
  /// Blocks until the part, which must be allowed, is done; does it here if the system starts no threads.
  void await(size_t part);

 private:
  void start_threads();
  void run();

  size_t count_;
  std::function<void(size_t part)> work_;
  std::mutex mutex_;
  std::condition_variable may_begin_, is_done_;
  size_t next_ = 0, allowed_ = 0;
  std::vector<bool> done_;  // [count]
  std::vector<std::thread> threads_;
};

}  // namespace chipmunk
