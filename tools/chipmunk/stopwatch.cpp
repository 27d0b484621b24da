#include "stopwatch.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "bench_values.h"
#include "chipmunk/error.h"
#include "ops/linear.h"

namespace chipmunk::cli {
namespace {

constexpr int64_t kClockSize = 8192;
constexpr const char* kClock = "clock";

}  // namespace

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void Stopwatch::add(std::string name, std::function<void()> body) {
  entries_.push_back({std::move(name), std::move(body), {}, 1});
}

void Stopwatch::add_clock() {
  const Tensor x = normal_tensor(context_, {kClockSize, kClockSize}, context_.activation_dtype(), 4);
  const Linear layer{normal_tensor(context_, {kClockSize, kClockSize}, context_.activation_dtype(), 5), {}};
  const Tensor result = context_.empty({kClockSize, kClockSize});
  add(kClock, [=, this] { ops::linear_into(context_, x, layer, result); });
  with_clock_ = true;
}

void Stopwatch::run() {
  for (Entry& entry : entries_) {
    entry.body();
    // Short kernels run several times between two events.
    entry.repeats = std::clamp(static_cast<int>(2.0 / std::max(time(entry, 1), 1e-3)), 1, 50);
  }
  for (int round = 0; round < rounds_; ++round) {
    for (Entry& entry : entries_) entry.ms.push_back(time(entry, entry.repeats));
  }
  for (Entry& entry : entries_) std::sort(entry.ms.begin(), entry.ms.end());
}

const std::vector<double>& Stopwatch::of(const std::string& name) const {
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.name == name; });
  if (found == entries_.end()) throw Error(ErrorCode::kInternal, "nothing was timed as " + name);
  return found->ms;
}

double Stopwatch::clock_tflops() const {
  if (!with_clock_) return 0.0;
  return 2.0 * std::pow(static_cast<double>(kClockSize), 3) / median(kClock) * 1e-9;
}

double Stopwatch::time(const Entry& entry, int repeats) const {
  DeviceRuntime& runtime = context_.runtime();
  const auto begin = runtime.record(StreamKind::kCompute);
  for (int i = 0; i < repeats; ++i) entry.body();
  const auto end = runtime.record(StreamKind::kCompute);
  runtime.synchronize();
  return runtime.elapsed_ms(*begin, *end) / repeats;
}

}  // namespace chipmunk::cli
