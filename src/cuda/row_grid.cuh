#pragma once

#include <algorithm>

#include "cuda/packs.cuh"

/// The grid of ops that treat every element of [batch, rows, channels] alike: x of a block and of the grid runs over
/// the packs of a row, y over rows, z over the batch.
namespace chipmunk::cuda {

constexpr int kRowGridThreads = 256;

struct RowGrid {
  dim3 blocks, threads;
};

inline RowGrid plan_row_grid(int64_t batch, int64_t rows, int64_t channels) {
  const int64_t packs = ceil_div(channels, kPack);
  int64_t width = kRowGridThreads;
  // Not so wide that a quarter of the threads would stand past the row's end; a warp stays on one row if it can.
  while (width > kWarpSize && 4 * (round_up(packs, width) - packs) >= packs) width /= 2;
  while (width / 2 >= packs) width /= 2;
  const int64_t height = kRowGridThreads / width;
  RowGrid result;
  result.threads = dim3(static_cast<unsigned>(width), static_cast<unsigned>(height));
  result.blocks = dim3(static_cast<unsigned>(ceil_div(packs, width)),
                       static_cast<unsigned>(std::min(ceil_div(rows, height), kMaxGridYZ)),
                       static_cast<unsigned>(std::min(batch, kMaxGridYZ)));
  return result;
}

/// First channel of the thread's pack; may be past the row's end.
__device__ inline int64_t grid_channel() {
  return (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kPack;
}
/// The thread's rows are grid_row() and every grid_row_step()-th after it.
__device__ inline int64_t grid_row() { return static_cast<int64_t>(blockIdx.y) * blockDim.y + threadIdx.y; }
__device__ inline int64_t grid_row_step() { return static_cast<int64_t>(gridDim.y) * blockDim.y; }

/// Makes rows that lie one behind the other in every operand a single row.
template <class... Strides>
void merge_rows(int64_t& rows, int64_t& channels, Strides&... strides) {
  if (rows != 1 && ((strides != channels) || ...)) return;
  channels *= rows;
  rows = 1;
  ((strides = channels), ...);
}

}  // namespace chipmunk::cuda
