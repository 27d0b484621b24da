#pragma once

#include <cstddef>

namespace chipmunk::cuda {

/// The compute capability that the kernels of sm90/ are for.
constexpr int kHopperMajor = 9;

/// What launch plans need to know of a GPU, read off it once.
struct DeviceProperties {
  int index = 0;
  int major = 0, minor = 0;  ///< compute capability
  int multiprocessors = 0;
  size_t shared_memory_per_block = 0;  ///< bytes, with the opt-in for more than 48 KB
};

/// Throws kBackendUnavailable if there is no device of that index or it is older than compute capability 8.0.
DeviceProperties query_device(int index);

}  // namespace chipmunk::cuda
