#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace chipmunk::cli {

/// What a GPU did from its first kernel, copy or fill of memory to the end of the last one.
struct GpuActivity {
  std::vector<double> operation_ms;  ///< of each, in order: from the end of those before, or its begin, to its end
  double busy_ms = 0.0;              ///< at least one was running
  double span_ms = 0.0;
};

/// Calls `body`, which must wait for the GPU before it returns, and tells what CUPTI saw; nothing, and why in `reason`,
/// where CUPTI or a GPU is missing. One call at a time.
std::optional<GpuActivity> trace_gpu(const std::function<void()>& body, std::string* reason);

}  // namespace chipmunk::cli
