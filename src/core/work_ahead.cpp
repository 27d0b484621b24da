#include "core/work_ahead.h"

#include <algorithm>
#include <system_error>
#include <utility>

namespace chipmunk {
namespace {

// A thread copies 4 to 6 GB/s out of a mapped file, and a PCIe 5 bus takes 55 GB/s. With more than 12 threads on 16
// cores an upload takes longer: whoever starts the transfers needs a core, too. Where a disk is what they wait for,
// there may be more of them than cores.
constexpr size_t kMinThreads = 4, kMaxThreads = 12;

}  // namespace

WorkAhead::WorkAhead(size_t count, std::function<void(size_t part)> work)
    : count_(count), work_(std::move(work)), done_(count) {
  start_threads();
}

WorkAhead::~WorkAhead() {
  {
    const std::lock_guard lock(mutex_);
    next_ = count_;
  }
  may_begin_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkAhead::start_threads() {
  const size_t cores = std::thread::hardware_concurrency();
  const size_t threads = std::min(count_, std::clamp(cores, kMinThreads, kMaxThreads));
  try {
    while (threads_.size() < threads) threads_.emplace_back([this] { run(); });
  } catch (const std::system_error&) {  // NOLINT(bugprone-empty-catch)
    // Fewer do the same.
  }
}

void WorkAhead::allow(size_t end) {
  const std::lock_guard lock(mutex_);
  // One wakes one: with all of them, the threads that find nothing would cost more than the part.
  for (; allowed_ < end; ++allowed_) may_begin_.notify_one();
}

void WorkAhead::await(size_t part) {
  if (threads_.empty()) {
    while (next_ <= part) work_(next_++);
    return;
  }
  std::unique_lock lock(mutex_);
  is_done_.wait(lock, [&] { return done_[part]; });
}

void WorkAhead::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    may_begin_.wait(lock, [this] { return next_ < allowed_ || next_ == count_; });
    if (next_ == count_) return;
    const size_t part = next_++;
    lock.unlock();
    work_(part);
    lock.lock();
    done_[part] = true;
    is_done_.notify_one();
  }
}

}  // namespace chipmunk
