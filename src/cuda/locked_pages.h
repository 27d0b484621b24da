#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

namespace chipmunk::cuda {

/// Host memory that copies between host and device use directly.
struct LockedPages {
  void* data = nullptr;
  size_t bytes = 0;
  bool is_mapping = false;  ///< pages of our own, else from cudaHostAlloc
};

/// Locks new pages. Where they are many, threads bring them into memory first, which is most of the time that
/// cudaHostAlloc takes. cudaErrorMemoryAllocation if there are not enough; nothing is kept then.
cudaError_t lock_pages(size_t bytes, LockedPages* pages);
void unlock_pages(const LockedPages& pages);

}  // namespace chipmunk::cuda
