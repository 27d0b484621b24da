#pragma once

#include "cuda/launch.h"

/// Sums and maxima over the threads of a warp or block, in an order that depends on nothing but its size.
namespace chipmunk::cuda {

/// Every lane receives the sum over its warp.
__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

__device__ inline float warp_max(float x) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
  return x;
}

/// Every thread receives the result over its block of kThreads threads, of which all take part; in `scratch`, a float a
/// warp, which may be used again after the next barrier.
template <int kThreads>
__device__ float block_sum(float x, float* scratch) {
  constexpr int kWarps = kThreads / kWarpSize;
  x = warp_sum(x);
  if (threadIdx.x % kWarpSize == 0) scratch[threadIdx.x / kWarpSize] = x;
  __syncthreads();
  float total = 0.0f;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) total += scratch[i];
  return total;
}
template <int kThreads>
__device__ float block_max(float x, float* scratch) {
  constexpr int kWarps = kThreads / kWarpSize;
  x = warp_max(x);
  if (threadIdx.x % kWarpSize == 0) scratch[threadIdx.x / kWarpSize] = x;
  __syncthreads();
  float largest = scratch[0];
#pragma unroll
  for (int i = 1; i < kWarps; ++i) largest = fmaxf(largest, scratch[i]);
  return largest;
}

}  // namespace chipmunk::cuda
