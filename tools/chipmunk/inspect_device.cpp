#include "inspect_device.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "commands.h"
#include "console.h"
#include "core/memory_text.h"
#include "cpu_description.h"

namespace chipmunk::cli {
namespace {

std::string to_text(const std::vector<CudaDeviceDescription>& devices) {
  std::string text = fmt::format("cpu\n  threads            {}\n  instructions       {}\n",
                                 std::thread::hardware_concurrency(), cpu_instruction_set());
  for (size_t i = 0; i < devices.size(); ++i) {
    const CudaDeviceDescription& device = devices[i];
    text += fmt::format("cuda:{}\n", i);
    const auto line = [&text](const char* name, const std::string& value) {
      text += fmt::format("  {:<18} {}\n", name, value);
    };
    line("name", device.name);
    line("bus", device.bus_id);
    line("compute capability", fmt::format("{}.{}{}", device.compute_major, device.compute_minor,
                                           device.usable ? "" : ", but 8.0 or newer is needed"));
    line("multiprocessors", fmt::format("{}, up to {} MHz", device.multiprocessors, device.clock_mhz));
    line("memory", format_bytes(device.memory_bytes));
    line("L2 cache", format_bytes(device.l2_bytes));
    line("shared memory", format_bytes(device.shared_bytes_per_block) + " a block");
    if (device.usable) line("attention kernels", device.attention);
  }
  if (devices.empty()) text += "cuda: " + cuda_description() + "\n";
  return text;
}

nlohmann::ordered_json to_json(const std::vector<CudaDeviceDescription>& devices) {
  nlohmann::ordered_json gpus = nlohmann::ordered_json::array();
  for (const CudaDeviceDescription& device : devices) {
    gpus.push_back({{"name", device.name},
                    {"bus", device.bus_id},
                    {"compute_capability", fmt::format("{}.{}", device.compute_major, device.compute_minor)},
                    {"usable", device.usable},
                    {"multiprocessors", device.multiprocessors},
                    {"clock_mhz", device.clock_mhz},
                    {"memory_bytes", device.memory_bytes},
                    {"l2_bytes", device.l2_bytes},
                    {"shared_bytes_per_block", device.shared_bytes_per_block},
                    {"attention_kernels", device.attention}});
  }
  return {{"cpu", {{"threads", std::thread::hardware_concurrency()}, {"instructions", cpu_instruction_set()}}},
          {"cuda", cuda_description()},
          {"gpus", gpus}};
}

}  // namespace

std::string describe_devices(const std::vector<CudaDeviceDescription>& gpus, bool json) {
  return json ? to_json(gpus).dump(2) + "\n" : to_text(gpus);
}

int run_inspect_device(bool json) {
  print_result(describe_devices(cuda_devices(), json));
  return kExitOk;
}

}  // namespace chipmunk::cli
