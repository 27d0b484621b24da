#pragma once

#include <cstdint>

#include "cuda/float_types.cuh"
#include "cuda/shared_address.cuh"

/// Tensor core and copy instructions that every GPU since compute capability 8.0 has, and the shared-memory tiles they
/// work on.
namespace chipmunk::cuda {

/// Elements in the 16 bytes that one asynchronous copy moves.
constexpr int kChunk = 8;

/// Copies 16 bytes into shared memory without waiting; zeros where valid is false (source is not read then).
__device__ inline void copy_async_16(void* destination, const void* source, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(destination)), "l"(source),
               "r"(valid ? 16 : 0));
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;\n" ::); }
/// Waits until at most kPending of this thread's committed groups are under way.
template <int kPending>
__device__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending));
}

/// Four 8x8 matrices of bf16; lane i gives the address of row i % 8 of matrix i / 8.
__device__ inline void load_matrices(uint32_t (&out)[4], const bf16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row)));
}
__device__ inline void load_matrices_transposed(uint32_t (&out)[4], const bf16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row)));
}

/// c[16, 8] += a[16, 16] b[16, 8]. Of c, lane i holds rows i / 4 and i / 4 + 8, columns i % 4 * 2 and the next.
__device__ inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Rows of kColumns bf16 in shared memory. The chunks of a row are exchanged by its index, so that eight rows' chunks
/// of one column lie in different banks.
template <int kColumns>
struct Tile {
  static constexpr int kChunks = kColumns / kChunk;
  static_assert(kChunks >= 8);

  bf16* data;

  __device__ bf16* chunk(int row, int index) const { return data + row * kColumns + (index ^ (row & 7)) * kChunk; }

  /// A 16x16 block whose first row and chunk are given, as operand a; or, of a [columns, depth] tile, as the operands b
  /// of columns 0-7 (results 0 and 2) and 8-15 (results 1 and 3).
  __device__ void load_block(uint32_t (&out)[4], int row, int first_chunk, int lane) const {
    load_matrices(out, chunk(row + lane % 16, first_chunk + lane / 16));
  }
  /// Of a [depth, columns] tile: as the operands b of columns 0-7 (results 0 and 1) and 8-15 (results 2 and 3).
  __device__ void load_block_transposed(uint32_t (&out)[4], int row, int first_chunk, int lane) const {
    load_matrices_transposed(out, chunk(row + lane % 16, first_chunk + lane / 16));
  }
};

}  // namespace chipmunk::cuda
