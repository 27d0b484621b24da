#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <mutex>
#include <vector>

#include "core/storage.h"
#include "cuda/cuda_streams.h"

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

  /// Throws kOutOfMemory.
  std::shared_ptr<Storage> allocate(size_t bytes);

 private:
  struct Block {
    void* data = nullptr;
    size_t capacity = 0;
    cudaEvent_t compute_done = nullptr, copy_done = nullptr;
  };

  Block take(size_t bytes);
  void release(Block block);
  static bool idle(const Block& block);
  static void destroy(const Block& block);

  std::shared_ptr<Streams> streams_;
  std::mutex mutex_;
  std::vector<Block> released_;
};

}  // namespace chipmunk::cuda
