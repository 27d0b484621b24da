#include "cuda/cuda_device.h"

#include <cuda_runtime_api.h>

#include <string>

#include "backend.h"
#include "chipmunk/error.h"
#include "cuda/cuda_error.h"

namespace chipmunk {
namespace cuda {
namespace {

/// The oldest that has bf16 tensor cores and asynchronous copies into shared memory.
constexpr int kMinMajor = 8;

int attribute(cudaDeviceAttr name, int index) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, name, index), "cudaDeviceGetAttribute");
  return value;
}

std::string version_name(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace

DeviceProperties query_device(int index) {
  const int count = cuda_device_count();
  if (index < 0 || index >= count) {
    throw Error(ErrorCode::kBackendUnavailable,
                "there is no device cuda:" + std::to_string(index) + " (" + cuda_description() + "): use --device cpu");
  }
  DeviceProperties properties;
  properties.index = index;
  properties.major = attribute(cudaDevAttrComputeCapabilityMajor, index);
  properties.minor = attribute(cudaDevAttrComputeCapabilityMinor, index);
  properties.multiprocessors = attribute(cudaDevAttrMultiProcessorCount, index);
  properties.shared_memory_per_block = static_cast<size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, index));
  if (properties.major < kMinMajor) {
    throw Error(ErrorCode::kBackendUnavailable,
                "cuda:" + std::to_string(index) + " has compute capability " + std::to_string(properties.major) + "." +
                    std::to_string(properties.minor) + ", but 8.0 or newer is needed: use --device cpu");
  }
  return properties;
}

}  // namespace cuda

int cuda_device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  // No driver is a finding, not a failure of the next call.
  cudaGetLastError();
  return 0;
}

std::string cuda_description() {
  const int count = cuda_device_count();
  return "CUDA " + cuda::version_name(CUDART_VERSION) + ", " +
         (count == 0 ? std::string("no device") : std::to_string(count) + (count == 1 ? " device" : " devices"));
}

}  // namespace chipmunk
