#pragma once

#include <cstddef>

namespace chipmunk::cuda::sm90 {

/// How an attention kernel divides its work: one warpgroup brings keys and values into shared memory, the others
/// compute, each for 64 query rows; keys go by in tiles.
template <int kHeadDim_, int kWarpgroups_, int kTileKeys_, int kStages_, bool kOverlap_, int kProducerRegisters_,
          bool kTurns_ = false>
struct AttentionShape {
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kWarpgroups = kWarpgroups_;  // that compute
  static constexpr int kTileKeys = kTileKeys_;
  static constexpr int kStages = kStages_;  // tiles of keys, and of values, that shared memory holds
  // Whether a warpgroup multiplies one tile's values and the next one's keys while it computes a softmax. It costs the
  // registers of a tile's probabilities; without it, the warpgroups fill each other's pauses.
  static constexpr bool kOverlap = kOverlap_;

  // Whether the warpgroups start their products in turn, so that one's run while another computes a softmax.
  static constexpr bool kTurns = kTurns_;

  static constexpr int kWarpgroupRows = 64;
  static constexpr int kRows = kWarpgroups * kWarpgroupRows;
  static constexpr int kThreads = (kWarpgroups + 1) * 128;
  // Of the 512 registers that four threads, one of each warpgroup, have together; a multiple of 8.
  static constexpr int kProducerRegisters = kProducerRegisters_;
  static constexpr int kConsumerRegisters = kWarpgroups == 3 ? (512 - kProducerRegisters) / 3 / 8 * 8 : 240;
  static_assert(kWarpgroups == 3 || (kWarpgroups == 2 && kProducerRegisters == 24));

  // Shared memory, from an address that is a multiple of kAlignment.
  static constexpr int kAlignment = 1024;
  static constexpr int kQBytes = kRows * kHeadDim * 2;
  static constexpr int kWarpgroupQBytes = kWarpgroupRows * kHeadDim * 2;
  static constexpr int kTileBytes = kTileKeys * kHeadDim * 2;
  static constexpr int kKeysOffset = kQBytes;
  static constexpr int kValuesOffset = kKeysOffset + kStages * kTileBytes;
  static constexpr int kBarriersOffset = kValuesOffset + kStages * kTileBytes;
  static constexpr int kBarriers = 4 * kStages + kWarpgroups;
  static constexpr int kEnd = kBarriersOffset + kBarriers * 8;
  static constexpr size_t kSharedBytes = kEnd + kAlignment;
};

}  // namespace chipmunk::cuda::sm90
