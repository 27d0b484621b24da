#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace chipmunk {

using PhiloxCounter = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

/// Philox4x32-10: 128 random bits for each (counter, key), the same on every device.
/// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).
PhiloxCounter philox4x32(PhiloxCounter counter, PhiloxKey key);

/// Standard normals for a seed: element i depends on (seed, i) alone. Drawn in double by Box-Muller, rounded once.
void philox_normals(uint64_t seed, std::span<float> values);

}  // namespace chipmunk
