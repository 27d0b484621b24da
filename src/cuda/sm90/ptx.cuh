#pragma once

#include <cuda.h>

#include <cstdint>

#include "cuda/shared_address.cuh"

/// Hopper's instructions, one function each and nothing else. Shared memory is named by its 32-bit address.
namespace chipmunk::cuda::sm90 {

// Barriers in shared memory (mbarrier).

__device__ inline void init_barrier(uint32_t barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(arrivals) : "memory");
}
/// Makes initialised barriers visible to the copy engine.
__device__ inline void fence_barrier_init() { asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory"); }
__device__ inline void arrive(uint32_t barrier) {
  asm volatile("{.reg .b64 state; mbarrier.arrive.shared::cta.b64 state, [%0];}\n" ::"r"(barrier) : "memory");
}
/// Arrives, and has the barrier wait for that many bytes of bulk copies, too.
__device__ inline void arrive_expecting(uint32_t barrier, uint32_t bytes) {
  asm volatile("{.reg .b64 state; mbarrier.arrive.expect_tx.shared::cta.b64 state, [%0], %1;}\n" ::"r"(barrier),
               "r"(bytes)
               : "memory");
}
/// Arrives at the barrier that block `rank` of the cluster has at this address.
__device__ inline void arrive_at_peer(uint32_t barrier, int rank) {
  asm volatile(
      "{.reg .b32 remote; mapa.shared::cluster.u32 remote, %0, %1; mbarrier.arrive.shared::cluster.b64 _, "
      "[remote];}\n" ::"r"(barrier),
      "r"(rank)
      : "memory");
}
/// Has the barrier's phase wait for that many bytes of bulk copies, too.
__device__ inline void expect_bytes(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(bytes) : "memory");
}
/// Arrives once all asynchronous copies that this thread has issued so far are complete.
__device__ inline void arrive_after_copies(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];\n" ::"r"(barrier) : "memory");
}
/// Waits until all asynchronous copies that this thread has issued are complete.
__device__ inline void wait_copies() { asm volatile("cp.async.wait_all;\n" ::: "memory"); }
/// Whether the phase of that parity has ended; may sleep for a while first.
__device__ inline bool try_wait(uint32_t barrier, uint32_t parity) {
  uint32_t ended;
  asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}\n"
               : "=r"(ended)
               : "r"(barrier), "r"(parity)
               : "memory");
  return ended != 0;
}
__device__ inline void wait(uint32_t barrier, uint32_t parity) {
  while (!try_wait(barrier, parity)) {
  }
}

// Barriers of the block, by number; 0 is __syncthreads()'s.

/// Arrives and waits until `threads` threads have arrived.
__device__ inline void join_barrier(int number, int threads) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(number), "r"(threads) : "memory");
}
/// Arrives for those who join.
__device__ inline void pass_barrier(int number, int threads) {
  asm volatile("bar.arrive %0, %1;\n" ::"r"(number), "r"(threads) : "memory");
}

// Copies.

/// A box of a tensor with four dimensions, innermost coordinate first.
__device__ inline void copy_box(uint32_t destination, const CUtensorMap* map, uint32_t barrier, int x, int y, int z,
                                int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], "
      "[%2];\n" ::"r"(destination),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w)
      : "memory");
}
/// The same box, of what is read once: its lines are the first to leave L2.
__device__ inline void copy_box_once(uint32_t destination, const CUtensorMap* map, uint32_t barrier, int x, int y,
                                     int z, int w) {
  asm volatile(
      "{.reg .b64 policy; createpolicy.fractional.L2::evict_first.b64 policy, 1.0; "
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%3, "
      "%4, %5, %6}], [%2], policy;}\n" ::"r"(destination),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w)
      : "memory");
}
/// The same box into the shared memory of those blocks of the cluster whose bit is set; each one's barrier counts it.
__device__ inline void copy_box_to_cluster(uint32_t destination, const CUtensorMap* map, uint32_t barrier,
                                           uint16_t blocks, int x, int y, int z, int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, "
      "{%3, %4, %5, %6}], [%2], %7;\n" ::"r"(destination),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w), "h"(blocks)
      : "memory");
}
__device__ inline void prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];\n" ::"l"(map) : "memory");
}
__device__ inline void copy_16(uint32_t destination, const void* source) {
  asm volatile("cp.async.cg.shared::cta.global [%0], [%1], 16;\n" ::"r"(destination), "l"(source) : "memory");
}
/// 16 bytes, or zeros where valid is false; the source is not read then.
__device__ inline void copy_16(uint32_t destination, const void* source, bool valid) {
  asm volatile("cp.async.cg.shared::cta.global [%0], [%1], 16, %2;\n" ::"r"(destination), "l"(source),
               "r"(valid ? 16 : 0)
               : "memory");
}
__device__ inline void copy_4(uint32_t destination, const void* source) {
  asm volatile("cp.async.ca.shared::cta.global [%0], [%1], 4;\n" ::"r"(destination), "l"(source) : "memory");
}
__device__ inline uint32_t load_shared(uint32_t address) {
  uint32_t word;
  asm volatile("ld.shared::cta.u32 %0, [%1];\n" : "=r"(word) : "r"(address) : "memory");
  return word;
}
__device__ inline uint4 load_shared_16(uint32_t address) {
  uint4 words;
  asm volatile("ld.shared::cta.v4.u32 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
               : "r"(address)
               : "memory");
  return words;
}
__device__ inline void store_shared(uint32_t address, uint32_t word) {
  asm volatile("st.shared::cta.u32 [%0], %1;\n" ::"r"(address), "r"(word) : "memory");
}
__device__ inline void store_shared_16(uint32_t address, uint4 words) {
  asm volatile("st.shared::cta.v4.u32 [%0], {%1, %2, %3, %4};\n" ::"r"(address), "r"(words.x), "r"(words.y),
               "r"(words.z), "r"(words.w)
               : "memory");
}
/// Four matrices of 8 x 8 elements of 16 bits, as a warp has them in products' results: lane 4 i + j has elements 2 j
/// and 2 j + 1 of row i. Lane 8 m + i says where row i of matrix m lies.
__device__ inline void load_matrices(uint32_t row, uint32_t (&words)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared::cta.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(row)
               : "memory");
}
__device__ inline void store_matrices(uint32_t row, const uint32_t (&words)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared::cta.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(row), "r"(words[0]),
               "r"(words[1]), "r"(words[2]), "r"(words[3])
               : "memory");
}
/// Orders this thread's view of shared memory before what tensor cores and copy engine do next.
__device__ inline void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory"); }

// Matrix products of a warpgroup.

/// Orders accesses to registers before the products that use them.
__device__ inline void fence_products() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ inline void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
/// Waits until at most kPending committed groups are under way.
template <int kPending>
__device__ void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kPending) : "memory");
}

// Registers of a warpgroup.

template <int kRegisters>
__device__ void grow_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ void shrink_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}

/// 2^x, to 2 ulp; 0 for -inf.
__device__ inline float exp2_fast(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(result) : "f"(x));
  return result;
}

}  // namespace chipmunk::cuda::sm90
