#include "cuda/cuda_backend.h"

#include "cuda/cuda_streams.h"
#include "cuda/launch.h"
#include "cuda/matmul.h"
#include "cuda/runtime.h"
#include "cuda/stream_runtime.h"

namespace chipmunk {
namespace cuda {

CudaBackend::CudaBackend(const DeviceProperties& device) : device_(device), matmul_(std::make_unique<Matmul>()) {}

CudaBackend::~CudaBackend() = default;

cudaStream_t compute_stream(const Context& context) {
  select_device(context.device().index);
  return static_cast<cudaStream_t>(context.runtime().native_stream(StreamKind::kCompute));
}

}  // namespace cuda

Context make_cuda_context(const CudaOptions& options) {
  auto runtime = std::make_shared<cuda::CudaRuntime>(options.index, options.memory_limit);
  cuda::DeviceProperties properties = runtime->properties();
  if (options.multiprocessors > 0) properties.multiprocessors = options.multiprocessors;
  auto backend = std::make_shared<cuda::CudaBackend>(properties);
  return Context(std::move(runtime), std::move(backend), DType::kBF16);
}

std::function<Context(void* stream)> make_cuda_stream_contexts(int index) {
  const auto backend = std::make_shared<cuda::CudaBackend>(cuda::query_device(index));
  return [index, backend](void* stream) {
    auto runtime = std::make_shared<cuda::StreamRuntime>(index, static_cast<cudaStream_t>(stream));
    return Context(std::move(runtime), backend, DType::kBF16);
  };
}

}  // namespace chipmunk
