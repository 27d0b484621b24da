#include "gpu_description.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "inspect_device.h"

/// What is told of GPUs, for made-up ones.
namespace chipmunk::cli {
namespace {

CudaDeviceDescription hopper() {
  CudaDeviceDescription gpu;
  gpu.name = "NVIDIA H100";
  gpu.bus_id = "0000:1B:00.0";
  gpu.compute_major = 9;
  gpu.multiprocessors = 132;
  gpu.memory_bytes = size_t{80} << 30;
  gpu.l2_bytes = size_t{50} << 20;
  gpu.shared_bytes_per_block = size_t{227} << 10;
  gpu.clock_mhz = 1980;
  gpu.usable = true;
  gpu.attention = "sm90";
  return gpu;
}

CudaDeviceDescription too_old() {
  CudaDeviceDescription gpu = hopper();
  gpu.name = "Tesla T4";
  gpu.compute_major = 7;
  gpu.compute_minor = 5;
  gpu.usable = false;
  gpu.attention.clear();
  return gpu;
}

TEST(GpuSummary, IsOneLine) {
  EXPECT_EQ(gpu_summary(hopper()), "NVIDIA H100, compute capability 9.0, 132 multiprocessors, 80.00 GiB");
  EXPECT_EQ(gpu_summary(too_old()), "Tesla T4, compute capability 7.5, 132 multiprocessors, 80.00 GiB, too old");
}

TEST(DescribeDevices, AsText) {
  const std::string text = describe_devices({hopper(), too_old()}, false);
  EXPECT_EQ(text.find("cpu\n  threads "), 0u) << text;
  EXPECT_NE(text.find("cuda:0\n"
                      "  name               NVIDIA H100\n"
                      "  bus                0000:1B:00.0\n"
                      "  compute capability 9.0\n"
                      "  multiprocessors    132, up to 1980 MHz\n"
                      "  memory             80.00 GiB\n"
                      "  L2 cache           50.00 MiB\n"
                      "  shared memory      227.00 KiB a block\n"
                      "  attention kernels  sm90\n"
                      "cuda:1\n"
                      "  name               Tesla T4\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("  compute capability 7.5, but 8.0 or newer is needed\n"), std::string::npos) << text;
  EXPECT_EQ(text.find("attention kernels", text.find("cuda:1")), std::string::npos) << text;
}

TEST(DescribeDevices, WithoutAGpuSaysWhy) {
  EXPECT_NE(describe_devices({}, false).find("\ncuda: " + cuda_description() + "\n"), std::string::npos);
}

TEST(DescribeDevices, AsJson) {
  const nlohmann::json json = nlohmann::json::parse(describe_devices({hopper(), too_old()}, true));
  EXPECT_GT(json.at("cpu").at("threads").get<int>(), 0);
  EXPECT_FALSE(json.at("cpu").at("instructions").get<std::string>().empty());
  ASSERT_EQ(json.at("gpus").size(), 2u);
  const nlohmann::json& gpu = json.at("gpus")[0];
  EXPECT_EQ(gpu.at("name"), "NVIDIA H100");
  EXPECT_EQ(gpu.at("bus"), "0000:1B:00.0");
  EXPECT_EQ(gpu.at("compute_capability"), "9.0");
  EXPECT_EQ(gpu.at("usable"), true);
  EXPECT_EQ(gpu.at("multiprocessors"), 132);
  EXPECT_EQ(gpu.at("clock_mhz"), 1980);
  EXPECT_EQ(gpu.at("memory_bytes"), size_t{80} << 30);
  EXPECT_EQ(gpu.at("l2_bytes"), size_t{50} << 20);
  EXPECT_EQ(gpu.at("shared_bytes_per_block"), size_t{227} << 10);
  EXPECT_EQ(gpu.at("attention_kernels"), "sm90");
  EXPECT_EQ(json.at("gpus")[1].at("usable"), false);
  EXPECT_TRUE(describe_devices({}, true).find("\"gpus\": []") != std::string::npos);
}

}  // namespace
}  // namespace chipmunk::cli
