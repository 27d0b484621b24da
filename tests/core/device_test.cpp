#include "chipmunk/device.h"

#include <gtest/gtest.h>

#include "chipmunk/error.h"

namespace chipmunk {
namespace {

TEST(Device, ParsesWhatItPrints) {
  for (const Device device :
       {Device{DeviceKind::kCpu, 0}, Device{DeviceKind::kCuda, 0}, Device{DeviceKind::kCuda, 3}}) {
    EXPECT_EQ(parse_device(to_string(device)), device);
  }
  EXPECT_EQ(parse_device("cuda"), (Device{DeviceKind::kCuda, 0}));
}

TEST(Device, OtherNamesAreErrors) {
  for (const char* text : {"", "gpu", "cuda:", "cuda:-1", "cuda:1x", "cuda: 1", "cpu:0", "cuda:99999999999999999999"}) {
    try {
      parse_device(text);
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find(text), std::string::npos);
    }
  }
}

TEST(Error, PutsThePlaceInFront) {
  const Error error(ErrorCode::kInvalidFile, "expected A, found B", "weights.safetensors");
  EXPECT_STREQ(error.what(), "weights.safetensors: expected A, found B");
  EXPECT_EQ(error.where(), "weights.safetensors");
  EXPECT_EQ(to_string(error.code()), "InvalidFile");
  EXPECT_STREQ(Error(ErrorCode::kIo, "text").what(), "text");
}

}  // namespace
}  // namespace chipmunk
