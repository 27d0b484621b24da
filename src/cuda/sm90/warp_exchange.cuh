#pragma once

#include "cuda/sm90/ptx.cuh"

namespace chipmunk::cuda::sm90 {

/// A warp's 16 rows of kColumns elements of 16 bits in shared memory, by which results of products, whose rows four
/// lanes share word by word, become chunks of 16 bytes and back: memory wants those. Rows lie 16 bytes further apart
/// than they are long, so that neither view meets itself in a bank. Between the views, __syncwarp().
template <int kColumns>
class WarpExchange {
 public:
  static constexpr int kRows = 16, kPitch = kColumns * 2 + 16, kBytes = kRows * kPitch - 16;
  /// As memory has the rows: in step `step` of kSteps, a lane has one chunk of a row; in kRowSteps, those of one row.
  static constexpr int kRowSteps = kColumns / 64, kSteps = kRows / 4 * kRowSteps;

  /// address: a multiple of 16.
  __device__ explicit WarpExchange(uint32_t address) : address_(address) {}

  /// As products have it: where the calling lane's row lies of the matrices of 8 x 8 that load_matrices and
  /// store_matrices move for blocks of 8 columns `block` and block + 1.
  __device__ uint32_t matrices(int block) const {
    return address_ + lane() % 16 * kPitch + lane() / 16 * 16 + block * 16;
  }

  /// Brings all of it from that view to the other: kMatrices fours of matrices, of blocks 2 i and 2 i + 1.
  static constexpr int kMatrices = kColumns / 16;
  __device__ void put(const uint32_t (&words)[kMatrices][4]) const {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kMatrices; ++i) store_matrices(matrices(2 * i), words[i]);
    __syncwarp();
  }

  /// 16 bytes between a row and the next, for what else goes with an exchange.
  __device__ uint32_t unused(int row = 0) const { return address_ + kColumns * 2 + row * kPitch; }

  /// Of the lane's chunk in a step: row, first column, and where it lies.
  __device__ static int row(int step) { return row_step(step) + lane() / 8; }
  __device__ static int column(int step) { return column_step(step) + lane() % 8 * 8; }
  __device__ uint32_t chunk(int step) const {
    return address_ + lane() / 8 * kPitch + lane() % 8 * 16 + row_step(step) * kPitch + column_step(step) * 2;
  }
  /// Of these, what the step alone decides.
  __device__ static constexpr int row_step(int step) { return step / kRowSteps * 4; }
  __device__ static constexpr int column_step(int step) { return step % kRowSteps * 64; }

 private:
  static_assert(kColumns % 64 == 0);
  __device__ static int lane() { return static_cast<int>(threadIdx.x) % 32; }

  uint32_t address_;
};

}  // namespace chipmunk::cuda::sm90
