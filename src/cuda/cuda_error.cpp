#include "cuda/cuda_error.h"

#include <string>

#include "chipmunk/error.h"

namespace chipmunk::cuda {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  // The error of a failed call would otherwise be reported again by the next launch.
  cudaGetLastError();
  const ErrorCode code = status == cudaErrorMemoryAllocation ? ErrorCode::kOutOfMemory : ErrorCode::kInternal;
  throw Error(code, std::string(cudaGetErrorName(status)) + ": " + cudaGetErrorString(status), what);
}

void check_launch(const char* op) { check(cudaGetLastError(), op); }

}  // namespace chipmunk::cuda
