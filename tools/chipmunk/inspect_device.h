#pragma once

#include <string>
#include <vector>

#include "backend.h"

namespace chipmunk::cli {

/// This machine's CPU and these GPUs, as a text or JSON.
std::string describe_devices(const std::vector<CudaDeviceDescription>& gpus, bool json);

/// `inspect --device`: describes those of this machine. Returns the exit code.
int run_inspect_device(bool json);

}  // namespace chipmunk::cli
