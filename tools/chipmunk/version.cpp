#include <fmt/format.h>

#include <string>
#include <thread>

#include "backend.h"
#include "commands.h"
#include "console.h"
#include "cpu_description.h"
#include "gpu_description.h"

namespace chipmunk::cli {
namespace {

std::string compiler() {
#if defined(__clang__)
  return "Clang " __clang_version__;
#elif defined(__GNUC__)
  return "GCC " __VERSION__;
#else
  return "unknown";
#endif
}

}  // namespace

int run_version() {
  print_result(fmt::format("chipmunk {}\ncompiler: {}\nbuild type: {}\nCPU: {} threads, {}\nCUDA: {}\n",
                           CHIPMUNK_VERSION, compiler(), CHIPMUNK_BUILD_TYPE, std::thread::hardware_concurrency(),
                           cpu_instruction_set(), cuda_description()));
  int index = 0;
  for (const CudaDeviceDescription& gpu : cuda_devices()) {
    print_result(fmt::format("cuda:{}: {}\n", index++, gpu_summary(gpu)));
  }
  return kExitOk;
}

}  // namespace chipmunk::cli
