#pragma once

#include <cuda_runtime_api.h>

#include <utility>

#include "cuda/cuda_device.h"
#include "cuda/cuda_error.h"

/// Kernels that begin while the one before them in the stream ends (programmatic dependent launch), on GPUs that can:
/// blocks start, and make ready what needs no memory, as multiprocessors become free.
namespace chipmunk::cuda {

/// Waits until everything before this kernel in its stream is complete. A kernel launched by launch_overlapping calls
/// it in every thread before it writes device memory, or reads what those before it may write. One that does not depend
/// on the kernel before it (LinearParams::overlaps_last) calls it at its end instead, since what is behind waits for it
/// alone; it began when everything earlier was complete, for no kernel lets it begin, or ends, without having waited.
__device__ inline void wait_for_previous_kernels() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\n" ::: "memory");
#endif
}

/// Lets the kernel behind begin once every block has come here or ended. Called after the wait, so that it begins when
/// all before this kernel is complete.
__device__ inline void let_next_kernel_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
#endif
}

/// Whether the current device lets kernels overlap. Throws like every CUDA call.
inline bool overlaps_kernels() {
  int device = 0, major = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  return major >= kHopperMajor;
}

/// kernel<<<grid, block, shared_bytes, stream>>>(arguments...) for a kernel that calls wait_for_previous_kernels.
template <class... Parameters, class... Arguments>
void launch_overlapping(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                        const char* what, Arguments&&... arguments) {
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = overlaps_kernels() ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), what);
}

}  // namespace chipmunk::cuda
