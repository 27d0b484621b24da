#include "gpu_trace.h"

#ifdef CHIPMUNK_HAVE_CUPTI
#include <cupti.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <utility>
#include <vector>
#endif

namespace chipmunk::cli {

#ifdef CHIPMUNK_HAVE_CUPTI
namespace {

constexpr size_t kBufferBytes = size_t{1} << 20, kBufferAlignment = 8;

/// Begin and end of each operation, in nanoseconds. CUPTI's callbacks take no argument of ours.
struct Spans {
  std::mutex mutex;
  std::vector<std::pair<uint64_t, uint64_t>> values;
};
Spans& spans() {
  static Spans spans;
  return spans;
}

/// The library's functions. It is part of the CUDA toolkit, which a machine that runs the program need not have.
class Cupti {
 public:
  Cupti() : name_(fmt::format("libcupti.so.{}", CUDA_VERSION / 1000)), library_(dlopen(name_.c_str(), RTLD_NOW)) {
    if (library_ == nullptr) return;
    load("cuptiActivityRegisterCallbacks", &register_callbacks);
    load("cuptiActivityEnable", &enable);
    load("cuptiActivityDisable", &disable);
    load("cuptiActivityFlushAll", &flush);
    load("cuptiActivityGetNextRecord", &next_record);
  }

  bool usable() const { return library_ != nullptr && complete_; }
  const std::string& name() const { return name_; }

  decltype(&cuptiActivityRegisterCallbacks) register_callbacks = nullptr;
  decltype(&cuptiActivityEnable) enable = nullptr;
  decltype(&cuptiActivityDisable) disable = nullptr;
  decltype(&cuptiActivityFlushAll) flush = nullptr;
  decltype(&cuptiActivityGetNextRecord) next_record = nullptr;

 private:
  template <class Function>
  void load(const char* name, Function* function) {
    *function = reinterpret_cast<Function>(dlsym(library_, name));
    complete_ &= *function != nullptr;
  }

  std::string name_;
  void* library_;
  bool complete_ = true;
};
// Never unloaded: CUPTI keeps the callbacks.
const Cupti& cupti() {
  static const Cupti library;
  return library;
}

void CUPTIAPI give_buffer(uint8_t** buffer, size_t* size, size_t* max_records) {
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(kBufferAlignment, kBufferBytes));
  *size = *buffer != nullptr ? kBufferBytes : 0;
  *max_records = 0;
}

template <class Record>
void note(const CUpti_Activity* activity) {
  const auto* record = reinterpret_cast<const Record*>(activity);
  spans().values.emplace_back(record->start, record->end);
}

void CUPTIAPI take_buffer(CUcontext, uint32_t, uint8_t* buffer, size_t, size_t valid) {
  const std::lock_guard lock(spans().mutex);
  CUpti_Activity* activity = nullptr;
  while (cupti().next_record(buffer, valid, &activity) == CUPTI_SUCCESS) {
    // Newer records begin like these.
    switch (activity->kind) {
      case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL: note<CUpti_ActivityKernel9>(activity); break;
      case CUPTI_ACTIVITY_KIND_MEMCPY: note<CUpti_ActivityMemcpy5>(activity); break;
      case CUPTI_ACTIVITY_KIND_MEMSET: note<CUpti_ActivityMemset4>(activity); break;
      default: break;
    }
  }
  std::free(buffer);
}

GpuActivity summarise(std::vector<std::pair<uint64_t, uint64_t>> values) {
  GpuActivity activity;
  if (values.empty()) return activity;
  std::sort(values.begin(), values.end());
  constexpr double kMsPerNs = 1e-6;
  uint64_t end = values.front().first;
  for (const auto& [first, last] : values) {
    activity.operation_ms.push_back(last > end ? static_cast<double>(last - std::max(first, end)) * kMsPerNs : 0.0);
    activity.busy_ms += activity.operation_ms.back();
    end = std::max(end, last);
  }
  activity.span_ms = static_cast<double>(end - values.front().first) * kMsPerNs;
  return activity;
}

}  // namespace

std::optional<GpuActivity> trace_gpu(const std::function<void()>& body, std::string* reason) {
  const Cupti& library = cupti();
  if (!library.usable()) {
    *reason = library.name() + ", a part of the CUDA toolkit, was not found";
    return std::nullopt;
  }
  constexpr CUpti_ActivityKind kKinds[] = {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY,
                                           CUPTI_ACTIVITY_KIND_MEMSET};
  bool enabled = library.register_callbacks(give_buffer, take_buffer) == CUPTI_SUCCESS;
  for (const CUpti_ActivityKind kind : kKinds) enabled = enabled && library.enable(kind) == CUPTI_SUCCESS;
  if (enabled) {
    {
      const std::lock_guard lock(spans().mutex);
      spans().values.clear();
    }
    body();
  }
  for (const CUpti_ActivityKind kind : kKinds) library.disable(kind);
  library.flush(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  const std::lock_guard lock(spans().mutex);
  if (!enabled || spans().values.empty()) {
    *reason = "CUPTI could not trace this GPU";
    return std::nullopt;
  }
  return summarise(std::move(spans().values));
}

#else

std::optional<GpuActivity> trace_gpu(const std::function<void()>&, std::string* reason) {
  *reason = "this build has no CUPTI";
  return std::nullopt;
}

#endif

}  // namespace chipmunk::cli
