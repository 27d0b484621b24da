#pragma once

#include <string>

#include "backend.h"

namespace chipmunk::cli {

/// "NVIDIA H100, compute capability 9.0, 132 multiprocessors, 79.10 GiB": what tells one GPU from another.
std::string gpu_summary(const CudaDeviceDescription& gpu);

}  // namespace chipmunk::cli
