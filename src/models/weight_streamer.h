#pragma once

namespace chipmunk {

/// Brings the weights of a model's blocks to where they are computed with. A forward says which block it runs; blocks
/// count from 0 in the order in which they run.
class WeightStreamer {
 public:
  virtual ~WeightStreamer() = default;

  /// From here on the block's tensors are on the device, for what is queued on the compute stream. Throws kOutOfMemory.
  virtual void begin_block(int block) = 0;
  /// Everything that reads them is queued.
  virtual void end_block(int block) = 0;
};

/// Weights that are where they are needed all the time.
class ResidentWeights final : public WeightStreamer {
 public:
  void begin_block(int) override {}
  void end_block(int) override {}
};

}  // namespace chipmunk
