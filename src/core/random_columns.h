#pragma once

#include <cstdint>
#include <span>

namespace chipmunk {

/// What is drawn: the two never share random bits.
enum class RandomPurpose : uint32_t { kAttentionColumns = 1, kMlpFeatures = 2 };

/// Names one row of random choices, so that every device draws the same.
struct RandomRow {
  uint64_t seed = 0;  ///< of the generation
  RandomPurpose purpose = RandomPurpose::kAttentionColumns;
  int64_t step = 0;    ///< below 2^12
  int64_t branch = 0;  ///< of the guidance, below 2^4
  int64_t layer = 0;   ///< below 2^12
  int64_t batch = 0;   ///< below 2^16
  int64_t head = 0;    ///< below 2^16; 0 for the MLP
  int64_t group = 0;   ///< of query rows, or the token block of the MLP; below 2^28
};

/// A column is chosen iff its 32 random bits are below this: floor(probability * 2^32), so 0 chooses none and 2^32 all.
/// Throws kInvalidArgument for a probability outside of [0, 1].
uint64_t random_threshold(double probability);

/// Chooses each column of one row with the given probability, independently: mask[j] = bits(j) < threshold, or 0.
///
/// bits(j) = word j % 4 of philox4x32(counter, key), core/philox.h, with
///   key[0]     = seed, low 32 bits            key[1] = seed, high 32 bits
///   counter[0] = j / 4
///   counter[1] = group | branch << 28
///   counter[2] = head | batch << 16
///   counter[3] = step | layer << 12 | purpose << 24
/// The purpose is never 0, which keeps these counters apart from those of philox_normals under the same seed.
/// Throws kInvalidArgument for a part of the name that does not fit into its bits.
void draw_random(const RandomRow& row, uint64_t threshold, std::span<uint8_t> mask);

}  // namespace chipmunk
