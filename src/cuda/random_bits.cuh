#pragma once

#include <algorithm>
#include <cstdint>

#include "core/random_columns.h"

/// The random columns of core/random_columns.h, drawn where they are used.
namespace chipmunk::cuda {

/// Philox4x32-10, as core/philox.h has it.
__host__ __device__ inline void philox(uint32_t (&counter)[4], uint32_t key0, uint32_t key1) {
#pragma unroll 5
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter[0] = static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key0;
    counter[1] = static_cast<uint32_t>(product1);
    counter[2] = static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key1;
    counter[3] = static_cast<uint32_t>(product0);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

/// What the rows of one launch have in common.
struct RandomDraw {
  bool enabled;
  uint32_t key[2];
  uint32_t branch;  // in its place of the counter
  uint32_t step_layer_purpose;
  uint32_t last;  // bits up to this choose a column

  /// Throws kInvalidArgument, as draw_random does, unless the names of all rows fit.
  static RandomDraw make(const RandomRow& name, uint64_t threshold, int64_t batch, int64_t heads, int64_t groups) {
    RandomDraw draw{};
    draw.enabled = threshold != 0;
    if (!draw.enabled) return draw;
    RandomRow last_row = name;
    last_row.batch = batch - 1;
    last_row.head = heads - 1;
    last_row.group = groups - 1;
    draw_random(last_row, threshold, {});
    draw.key[0] = static_cast<uint32_t>(name.seed);
    draw.key[1] = static_cast<uint32_t>(name.seed >> 32);
    draw.branch = static_cast<uint32_t>(name.branch) << 28;
    draw.step_layer_purpose = static_cast<uint32_t>(name.step) | static_cast<uint32_t>(name.layer) << 12 |
                              static_cast<uint32_t>(name.purpose) << 24;
    draw.last = static_cast<uint32_t>(std::min(threshold, uint64_t{1} << 32) - 1);
    return draw;
  }

  /// Columns first to first + 3 of a row, bit i for column first + i; first is a multiple of 4.
  __host__ __device__ uint32_t quad(uint32_t batch, uint32_t head, uint32_t group, uint32_t first) const {
    uint32_t random[4] = {first / 4, group | branch, head | batch << 16, step_layer_purpose}, bits = 0;
    philox(random, key[0], key[1]);
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) bits |= static_cast<uint32_t>(random[i] <= last) << i;
    return bits;
  }

  /// Columns first to first + 31.
  __host__ __device__ uint32_t word(uint32_t batch, uint32_t head, uint32_t group, uint32_t first) const {
    uint32_t bits = 0;
#pragma unroll 1
    for (uint32_t i = 0; i < 32; i += 4) bits |= quad(batch, head, group, first + i) << i;
    return bits;
  }
};

}  // namespace chipmunk::cuda
