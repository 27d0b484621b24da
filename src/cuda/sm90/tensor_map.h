#pragma once

#include <cuda.h>

#include "params.h"

namespace chipmunk::cuda::sm90 {

/// A tensor's description for the copy engine: bf16 [batch, tokens, heads, head_dim], seen as [batch, heads, tokens,
/// head_dim] and read in boxes of box_tokens x 64 elements with the 128-byte swizzle; zeros past the end. Address and
/// strides must be multiples of 16 bytes. Throws kUnsupported where the driver does not take them.
CUtensorMap make_head_map(const void* data, const HeadStrides& strides, int64_t batch, int64_t tokens, int64_t heads,
                          int64_t head_dim, int box_tokens);

}  // namespace chipmunk::cuda::sm90
