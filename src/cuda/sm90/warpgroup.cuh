#pragma once

#include <cstdint>

/// Which part of a block a thread is in; the compiler sees that a warp's lanes agree.
namespace chipmunk::cuda::sm90 {

/// Of the block's warpgroups, the calling thread's.
__device__ inline int warpgroup_index() { return __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 128, 0); }
/// Of its warpgroup's four warps, the calling thread's.
__device__ inline int warp_of_warpgroup() {
  return __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) % 128 / 32, 0);
}

}  // namespace chipmunk::cuda::sm90
