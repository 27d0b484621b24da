#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

#include "core/context.h"
#include "models/packed_weights.h"
#include "models/weight_streamer.h"

namespace chipmunk {

/// Keeps the weights of blocks in pinned host memory, and two of the blocks on the device: while one computes, the copy
/// stream brings the next one. Blocks run in a cycle, forward after forward, so that after the last one the first
/// follows. Nothing waits on the host: the streams wait for each other.
///
/// The model's tensors are the device's between begin_block() and end_block(), and the host's at all other times.
class BlockStreamer final : public WeightStreamer {
 public:
  /// Copies all weights into pinned memory, a block in one piece. The model that the groups point into must stay in its
  /// place. The device must not be the CPU. Throws kOutOfMemory or what progress throws.
  BlockStreamer(const Context& context, const std::vector<WeightGroup>& blocks, const UploadProgress& progress);
  ~BlockStreamer() override;
  BlockStreamer(const BlockStreamer&) = delete;
  BlockStreamer& operator=(const BlockStreamer&) = delete;

  /// After an error that cut a forward short, any block may begin.
  void begin_block(int block) override;
  void end_block(int block) override;
  /// Gives the device memory back until the next begin_block().
  void release();

 private:
  /// Device memory for one block.
  struct Slot {
    std::shared_ptr<Storage> memory;
    int block = -1;                    ///< whose weights it has or is about to have
    std::unique_ptr<Event> is_free;    ///< on the compute stream: nothing before it needs the memory
    std::unique_ptr<Event> is_loaded;  ///< on the copy stream
  };

  void move_to_pinned(const UploadProgress& progress);
  void allocate();
  void fetch(int block, Slot& slot);

  Context context_;
  std::vector<PackedWeights> blocks_;
  std::vector<std::shared_ptr<Storage>> host_;  // [blocks], pinned
  std::array<Slot, 2> slots_;
  size_t current_ = 0;  // the slot that is in use, or was last
  int open_ = -1;       // the block between begin and end
};

}  // namespace chipmunk
