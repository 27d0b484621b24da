#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "chipmunk/error.h"
#include "cuda/cuda_backend.h"

namespace chipmunk {
namespace {

cuda::DeviceProperties device_of(int major, int minor) {
  cuda::DeviceProperties device;
  device.major = major;
  device.minor = minor;
  return device;
}

TEST(Fp8Device, OlderGpusAreRefusedWithWhatTheyAre) {
  for (const auto& [major, minor] : {std::pair(8, 0), std::pair(8, 6)}) {
    try {
      cuda::CudaBackend(device_of(major, minor)).require_fp8_linears();
      FAIL() << major << "." << minor;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
      const std::string message = error.what();
      EXPECT_NE(message.find("expected a GPU of compute capability 8.9"), std::string::npos) << message;
      EXPECT_NE(message.find("found 8." + std::to_string(minor)), std::string::npos) << message;
    }
  }
  for (const auto& [major, minor] : {std::pair(8, 9), std::pair(9, 0), std::pair(10, 0)}) {
    EXPECT_NO_THROW(cuda::CudaBackend(device_of(major, minor)).require_fp8_linears()) << major << "." << minor;
  }
}

}  // namespace
}  // namespace chipmunk
