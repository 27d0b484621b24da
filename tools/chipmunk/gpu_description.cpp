#include "gpu_description.h"

#include <fmt/format.h>

#include "core/memory_text.h"

namespace chipmunk::cli {

std::string gpu_summary(const CudaDeviceDescription& gpu) {
  return fmt::format("{}, compute capability {}.{}, {} multiprocessors, {}{}", gpu.name, gpu.compute_major,
                     gpu.compute_minor, gpu.multiprocessors, format_bytes(gpu.memory_bytes),
                     gpu.usable ? "" : ", too old");
}

}  // namespace chipmunk::cli
