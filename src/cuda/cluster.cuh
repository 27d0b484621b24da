#pragma once

#include <cstdint>

#include "cuda/mma.cuh"

/// Thread block clusters, which GPUs have since compute capability 9.0: blocks that run at the same time and read each
/// other's shared memory. Before, every block is a cluster of its own, and so it is in a launch without the attribute.
namespace chipmunk::cuda {

/// The largest cluster that every GPU with clusters runs.
constexpr int kMaxClusterBlocks = 8;

__device__ inline int cluster_rank() {
#if __CUDA_ARCH__ >= 900
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;\n" : "=r"(rank));
  return static_cast<int>(rank);
#else
  return 0;
#endif
}

__device__ inline int cluster_blocks() {
#if __CUDA_ARCH__ >= 900
  uint32_t blocks;
  asm volatile("mov.u32 %0, %%cluster_nctarank;\n" : "=r"(blocks));
  return static_cast<int>(blocks);
#else
  return 1;
#endif
}

/// Waits for all threads of the cluster; what they wrote to shared memory before is visible to all of them after.
__device__ inline void cluster_barrier() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;\n" ::: "memory");
#else
  __syncthreads();
#endif
}

/// What another block of the cluster has at the address that `p` has here, in shared memory.
__device__ inline uint32_t load_peer(const uint32_t* p, int rank) {
#if __CUDA_ARCH__ >= 900
  uint32_t value;
  asm volatile(
      "{\n.reg .b32 address;\nmapa.shared::cluster.u32 address, %1, %2;\nld.shared::cluster.u32 %0, [address];\n}\n"
      : "=r"(value)
      : "r"(shared_address(p)), "r"(rank));
  return value;
#else
  (void)rank;
  return *p;
#endif
}

/// The sum over the blocks of the cluster of what each has there.
__device__ inline uint32_t sum_peers(const uint32_t* p, int blocks) {
  uint32_t sum = 0;
  // Unrolled without branches, so that the loads are under way together.
#pragma unroll
  for (int rank = 0; rank < kMaxClusterBlocks; ++rank) {
    const uint32_t value = load_peer(p, min(rank, blocks - 1));
    sum += rank < blocks ? value : 0;
  }
  return sum;
}

}  // namespace chipmunk::cuda
