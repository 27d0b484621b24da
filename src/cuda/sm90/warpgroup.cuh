#pragma once

#include <cstdint>

/// Which part of a block a thread is in; of warps and warpgroups, the compiler sees that a warp's lanes agree.
namespace chipmunk::cuda::sm90 {

__device__ inline int lane_index() { return static_cast<int>(threadIdx.x) % 32; }
__device__ inline int warp_index() { return __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0); }
/// Of the block's warpgroups, the calling thread's.
__device__ inline int warpgroup_index() { return __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 128, 0); }
/// Of its warpgroup's four warps, the calling thread's.
__device__ inline int warp_of_warpgroup() {
  return __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) % 128 / 32, 0);
}

}  // namespace chipmunk::cuda::sm90
