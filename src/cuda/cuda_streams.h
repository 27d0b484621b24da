#pragma once

#include <cuda_runtime_api.h>

namespace chipmunk::cuda {

/// Makes the device current for the calling thread, as most calls of the CUDA runtime want it.
void select_device(int index);

/// The two streams of a device.
struct Streams {
  /// The device of that index must exist.
  explicit Streams(int index);
  ~Streams();
  Streams(const Streams&) = delete;
  Streams& operator=(const Streams&) = delete;

  int index;
  cudaStream_t compute = nullptr;
  cudaStream_t copy = nullptr;
};

}  // namespace chipmunk::cuda
