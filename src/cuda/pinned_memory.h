#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <mutex>
#include <vector>

#include "core/storage.h"
#include "cuda/cuda_streams.h"
#include "cuda/locked_pages.h"

namespace chipmunk::cuda {

/// Page-locked host memory. Locking pages takes longer than most transfers, so blocks are kept and handed out again:
/// a block may be released while a queued transfer still uses it, and is reused only after both streams have passed
/// that point.
class PinnedMemory : public std::enable_shared_from_this<PinnedMemory> {
 public:
  explicit PinnedMemory(std::shared_ptr<Streams> streams) : streams_(std::move(streams)) {}
  ~PinnedMemory();
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;

  /// Throws kOutOfMemory, saying how much was to be locked and how much is.
  std::shared_ptr<Storage> allocate(size_t bytes);
  /// Unlocks the released blocks that no transfer uses any more.
  void trim();

 private:
  struct Block {
    LockedPages pages;
    cudaEvent_t compute_done = nullptr, copy_done = nullptr;
  };

  Block take(size_t bytes);
  Block new_block(size_t capacity);
  void release(Block block);
  void trim_locked();
  static bool idle(const Block& block);
  static void destroy(const Block& block);

  std::shared_ptr<Streams> streams_;
  std::mutex mutex_;
  std::vector<Block> released_;
  size_t locked_bytes_ = 0;  // of all blocks, released ones too
};

}  // namespace chipmunk::cuda
