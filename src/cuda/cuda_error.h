#pragma once

#include <cuda_runtime_api.h>

namespace chipmunk::cuda {

/// Throws unless status is cudaSuccess: kOutOfMemory for a failed allocation, kInternal for everything else. what names
/// the call, e.g. "cudaStreamCreate".
void check(cudaError_t status, const char* what);

/// Throws if the launch just made was refused; op names it. Does not wait for the kernel.
void check_launch(const char* op);

}  // namespace chipmunk::cuda
