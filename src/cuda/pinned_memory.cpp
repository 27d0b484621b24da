#include "cuda/pinned_memory.h"

#include <algorithm>
#include <bit>

#include "chipmunk/error.h"
#include "core/memory_text.h"
#include "cuda/cuda_error.h"

namespace chipmunk::cuda {
namespace {

/// Smaller requests share blocks of this size.
constexpr size_t kMinBlock = 64 << 10;
/// Beyond this a block is as large as asked for: doubling would waste too much.
constexpr size_t kMaxRounded = 64 << 20;

size_t block_capacity(size_t bytes) { return bytes >= kMaxRounded ? bytes : std::bit_ceil(std::max(bytes, kMinBlock)); }

}  // namespace

PinnedMemory::~PinnedMemory() {
  for (const Block& block : released_) {
    cudaEventSynchronize(block.compute_done);
    cudaEventSynchronize(block.copy_done);
    destroy(block);
  }
}

std::shared_ptr<Storage> PinnedMemory::allocate(size_t bytes) {
  const Block block = take(bytes);
  return std::make_shared<Storage>(block.pages.data, bytes, Device{},
                                   [memory = shared_from_this(), block] { memory->release(block); });
}

PinnedMemory::Block PinnedMemory::take(size_t bytes) {
  const size_t capacity = block_capacity(bytes);
  select_device(streams_->index);
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(released_.begin(), released_.end(),
                                  [&](const Block& block) { return block.pages.bytes == capacity && idle(block); });
  if (found != released_.end()) {
    const Block block = *found;
    released_.erase(found);
    return block;
  }
  return new_block(capacity);
}

PinnedMemory::Block PinnedMemory::new_block(size_t capacity) {
  Block block;
  cudaError_t status = lock_pages(capacity, &block.pages);
  if (status == cudaErrorMemoryAllocation) {
    // Released blocks of other sizes may make room.
    cudaGetLastError();
    trim_locked();
    status = lock_pages(capacity, &block.pages);
  }
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw Error(ErrorCode::kOutOfMemory, "locking " + format_bytes(capacity) + " of host memory failed (" +
                                             format_bytes(locked_bytes_) + " locked already)");
  }
  check(status, "locking host memory");
  try {
    check(cudaEventCreateWithFlags(&block.compute_done, cudaEventDisableTiming), "cudaEventCreate");
    check(cudaEventCreateWithFlags(&block.copy_done, cudaEventDisableTiming), "cudaEventCreate");
  } catch (const Error&) {
    destroy(block);
    throw;
  }
  locked_bytes_ += capacity;
  return block;
}

void PinnedMemory::trim() {
  const std::lock_guard lock(mutex_);
  trim_locked();
}

void PinnedMemory::trim_locked() {
  const auto busy = std::partition(released_.begin(), released_.end(), [](const Block& block) { return !idle(block); });
  for (auto block = busy; block != released_.end(); ++block) {
    locked_bytes_ -= block->pages.bytes;
    destroy(*block);
  }
  released_.erase(busy, released_.end());
}

void PinnedMemory::release(Block block) {
  const std::lock_guard lock(mutex_);
  cudaEventRecord(block.compute_done, streams_->compute);
  cudaEventRecord(block.copy_done, streams_->copy);
  released_.push_back(block);
}

bool PinnedMemory::idle(const Block& block) {
  if (cudaEventQuery(block.compute_done) == cudaSuccess && cudaEventQuery(block.copy_done) == cudaSuccess) return true;
  // "Not ready" is kept as an error, which the check of the next launch would find.
  cudaGetLastError();
  return false;
}

void PinnedMemory::destroy(const Block& block) {
  if (block.copy_done != nullptr) cudaEventDestroy(block.copy_done);
  if (block.compute_done != nullptr) cudaEventDestroy(block.compute_done);
  unlock_pages(block.pages);
}

}  // namespace chipmunk::cuda
