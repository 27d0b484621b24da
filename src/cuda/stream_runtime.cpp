#include "cuda/stream_runtime.h"

#include <algorithm>

#include "chipmunk/error.h"
#include "core/memory_text.h"
#include "cuda/cuda_error.h"
#include "cuda/cuda_streams.h"

namespace chipmunk::cuda {
namespace {

[[noreturn]] void fail(const char* what) {
  throw Error(ErrorCode::kUnsupported, "on a stream of the caller's there is only its memory and scratch memory", what);
}

}  // namespace

std::shared_ptr<Storage> StreamRuntime::allocate(size_t bytes) {
  select_device(index_);
  void* data = nullptr;
  const cudaError_t status = cudaMallocAsync(&data, std::max<size_t>(bytes, 1), stream_);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw Error(ErrorCode::kOutOfMemory, "allocating " + format_bytes(bytes) + " of scratch memory failed");
  }
  check(status, "cudaMallocAsync");
  return std::make_shared<Storage>(data, bytes, device(), [data, stream = stream_] { cudaFreeAsync(data, stream); });
}

std::shared_ptr<Storage> StreamRuntime::allocate_pinned(size_t) { fail("allocate_pinned"); }
void StreamRuntime::copy(void*, Device, const void*, Device, size_t, StreamKind) { fail("copy"); }
std::unique_ptr<Event> StreamRuntime::record(StreamKind) { fail("record"); }
void StreamRuntime::wait(StreamKind, const Event&) { fail("wait"); }
void StreamRuntime::synchronize(const Event&) { fail("synchronize"); }
double StreamRuntime::elapsed_ms(const Event&, const Event&) { fail("elapsed_ms"); }

void StreamRuntime::synchronize() {
  select_device(index_);
  check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
}

}  // namespace chipmunk::cuda
