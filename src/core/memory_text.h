#pragma once

#include <cstddef>
#include <string>

#include "chipmunk/error.h"
#include "core/device_runtime.h"

/// How amounts of memory are told to people.
namespace chipmunk {

/// "600 B", "1.50 MiB", "23.40 GiB".
std::string format_bytes(size_t bytes);

/// kOutOfMemory: an allocation of `bytes` on the device would exceed the limit in `statistics`.
Error over_memory_limit(Device device, size_t bytes, const MemoryStatistics& statistics);

}  // namespace chipmunk
