#pragma once

#include <cstdint>

namespace chipmunk::cuda {

/// The 32-bit address by which instructions name shared memory.
__device__ inline uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

}  // namespace chipmunk::cuda
