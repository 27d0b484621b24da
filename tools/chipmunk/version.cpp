#include <fmt/format.h>

#include <string>
#include <thread>

#include "backend.h"
#include "commands.h"
#include "console.h"

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

/// The widest vector instructions of this CPU, as far as they matter to the engine.
std::string instruction_set() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) return "AVX-512";
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "AVX2";
  return "SSE";
#elif defined(__aarch64__)
  return "NEON";
#else
  return "unknown";
#endif
}

}  // namespace

int run_version() {
  print_result(fmt::format("chipmunk {}\ncompiler: {}\nbuild type: {}\nCPU: {} threads, {}\nCUDA: {}\n",
                           CHIPMUNK_VERSION, compiler(), CHIPMUNK_BUILD_TYPE, std::thread::hardware_concurrency(),
                           instruction_set(), cuda_description()));
  return kExitOk;
}

}  // namespace chipmunk::cli
