#include "cuda/cuda_device.h"

#include <cuda_runtime_api.h>

#include <array>
#include <string>
#include <vector>

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

CudaDeviceDescription describe_device(int index) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  std::array<char, 16> bus_id{};
  check(cudaDeviceGetPCIBusId(bus_id.data(), static_cast<int>(bus_id.size()), index), "cudaDeviceGetPCIBusId");
  CudaDeviceDescription description;
  description.name = properties.name;
  description.bus_id = bus_id.data();
  description.compute_major = properties.major;
  description.compute_minor = properties.minor;
  description.multiprocessors = properties.multiProcessorCount;
  description.memory_bytes = properties.totalGlobalMem;
  description.l2_bytes = static_cast<size_t>(properties.l2CacheSize);
  description.shared_bytes_per_block = properties.sharedMemPerBlockOptin;
  description.clock_mhz = attribute(cudaDevAttrClockRate, index) / 1000;
  description.usable = properties.major >= kMinMajor;
  if (description.usable) description.attention = properties.major == kHopperMajor ? "sm90" : "portable";
  return description;
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
  const std::string version = "CUDA " + cuda::version_name(CUDART_VERSION) + ", ";
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return version + "no driver";
  const std::string versions = version + "driver for " + cuda::version_name(driver) + ", ";
  int count = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess) {
    cudaGetLastError();
    return versions + "no device: " + cudaGetErrorString(status);
  }
  return versions + std::to_string(count) + (count == 1 ? " device" : " devices");
}

std::vector<CudaDeviceDescription> cuda_devices() {
  std::vector<CudaDeviceDescription> devices;
  for (int i = 0; i < cuda_device_count(); ++i) devices.push_back(cuda::describe_device(i));
  return devices;
}

}  // namespace chipmunk
