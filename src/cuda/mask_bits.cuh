#pragma once

#include <cstdint>

#include "cuda/row_selection.cuh"

/// Masks of a byte a column as words of a bit a column.
namespace chipmunk::cuda {

/// The bits of up to 32 bytes that are not 0.
__device__ inline uint32_t mask_word(const uint8_t* mask, int count) {
  uint32_t word = 0;
  if (count >= kWordBits && reinterpret_cast<uintptr_t>(mask) % sizeof(uint4) == 0) {
    const uint4 parts[2] = {reinterpret_cast<const uint4*>(mask)[0], reinterpret_cast<const uint4*>(mask)[1]};
    const uint32_t quads[8] = {parts[0].x, parts[0].y, parts[0].z, parts[0].w,
                               parts[1].x, parts[1].y, parts[1].z, parts[1].w};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      // Bit 7 of every byte that is not 0; the multiplication brings the four together above bit 24.
      const uint32_t set = (((quads[i] & 0x7f7f7f7fu) + 0x7f7f7f7fu) | quads[i]) & 0x80808080u;
      word |= (set >> 7) * 0x01020408u >> 24 << (4 * i);
    }
    return word;
  }
#pragma unroll 1
  for (int i = 0; i < min(count, kWordBits); ++i) word |= static_cast<uint32_t>(mask[i] != 0) << i;
  return word;
}

}  // namespace chipmunk::cuda
