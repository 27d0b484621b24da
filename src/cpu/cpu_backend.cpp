#include "cpu/cpu_backend.h"

#include <omp.h>

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
