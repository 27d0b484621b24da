#pragma once

#include <cstdint>

#include "cuda/float_types.cuh"
#include "cuda/random_bits.cuh"

/// The rows that a selection of an MLP's features works on: one for each block of tokens.
namespace chipmunk::cuda {

struct FeatureArguments {
  int columns, slice;  // of a row, and of each of its blocks
  const bf16* means;
  float* cached_means;
  const uint8_t* random_features;
  float* drift;
  int32_t *indices, *counts;
  int64_t blocks, mean_blocks, means_per_block;
  int64_t capacity;
  int top_k, multiple_of;
  RandomDraw draw;
  uint32_t head;  // of the drawn rows' names
};

/// The means of a block of tokens, from the first feature of a slice on.
struct MeanRows {
  int64_t count;
  const bf16* now;
  float* cached;
  float* drift;  // or null

  __device__ MeanRows(const FeatureArguments& a, int64_t row, int first_feature) {
    const int64_t batch = row / a.blocks, block = row % a.blocks;
    const int64_t first = (batch * a.mean_blocks + block * a.means_per_block) * a.columns + first_feature;
    count = min(a.means_per_block, a.mean_blocks - block * a.means_per_block);
    now = a.means + first;
    cached = a.cached_means + first;
    drift = a.drift != nullptr ? a.drift + row * a.columns + first_feature : nullptr;
  }
};

}  // namespace chipmunk::cuda
