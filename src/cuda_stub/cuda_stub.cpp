#include "backend.h"
#include "chipmunk/error.h"

namespace chipmunk {

int cuda_device_count() { return 0; }

std::string cuda_description() { return "built without CUDA"; }

std::vector<CudaDeviceDescription> cuda_devices() { return {}; }

Context make_cuda_context(const CudaOptions&) {
  throw Error(ErrorCode::kBackendUnavailable, "this build has no CUDA backend: use --device cpu");
}

std::function<Context(void* stream)> make_cuda_stream_contexts(int) {
  throw Error(ErrorCode::kBackendUnavailable, "this build has no CUDA backend");
}

std::function<void()> fastest_cublas_linear(const Context&, const LinearParams&) {
  throw Error(ErrorCode::kBackendUnavailable, "this build has no CUDA backend");
}

}  // namespace chipmunk
