#include "core/memory_text.h"

#include <cstdio>
#include <iterator>

namespace chipmunk {

std::string format_bytes(size_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024.0 && unit + 1 < std::size(kUnits); ++unit) value /= 1024.0;
  if (unit == 0) return std::to_string(bytes) + " B";
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f %s", value, kUnits[unit]);
  return text;
}

Error over_memory_limit(Device device, size_t bytes, const MemoryStatistics& statistics) {
  return Error(ErrorCode::kOutOfMemory, "allocating " + format_bytes(bytes) + " on " + to_string(device) +
                                            " would exceed the limit of " + format_bytes(statistics.limit_bytes) +
                                            " (" + format_bytes(statistics.current_bytes) + " in use)");
}

}  // namespace chipmunk
