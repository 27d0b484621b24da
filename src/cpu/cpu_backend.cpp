#include "cpu/cpu_backend.h"

#include <omp.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdint>
#include <memory>
#include <string>

#include "chipmunk/error.h"
#include "cpu/convert.h"
#include "cpu/workspace.h"

namespace chipmunk {

Context make_cpu_context(const CpuOptions& options) {
  if (options.threads < 0) {
    throw Error(ErrorCode::kInvalidArgument,
                "expected a thread count of 0 (all cores) or more, found " + std::to_string(options.threads),
                "make_cpu_context");
  }
  const int threads = options.threads > 0 ? options.threads : omp_get_num_procs();
  return Context(make_cpu_runtime(options.memory_limit), std::make_shared<CpuBackend>(threads), DType::kF32);
}

namespace cpu {
namespace {

/// Asks for large pages: without them a large block costs a page fault every 4 KB, each time it is allocated, and
/// reading it misses the address cache. A hint only.
void advise_large_pages([[maybe_unused]] void* data, [[maybe_unused]] size_t bytes) {
#if defined(__linux__)
  constexpr size_t kLargePage = size_t{2} << 20;
  const auto begin = (reinterpret_cast<uintptr_t>(data) + kLargePage - 1) / kLargePage * kLargePage;
  const auto end = (reinterpret_cast<uintptr_t>(data) + bytes) / kLargePage * kLargePage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

}  // namespace

Workspace::Workspace(const Context& context, int64_t floats)
    : storage_(context.runtime().allocate(static_cast<size_t>(floats) * sizeof(float))) {
  advise_large_pages(storage_->data(), storage_->bytes());
}

F32Vector::F32Vector(const Context& context, const In& source, int64_t n) : data_(f32(source)) {
  if (source.data == nullptr || source.dtype == DType::kF32) return;
  storage_ = context.runtime().allocate(static_cast<size_t>(n) * sizeof(float));
  auto* values = static_cast<float*>(storage_->data());
  upcast(source.data, source.dtype, values, n);
  data_ = values;
}

void require_f32(DType dtype, const char* what) {
  if (dtype == DType::kF32) return;
  throw Error(ErrorCode::kUnsupported, "the CPU computes in f32, found " + std::string(to_string(dtype)), what);
}

}  // namespace cpu
}  // namespace chipmunk
