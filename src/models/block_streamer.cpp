#include "models/block_streamer.h"

#include <algorithm>
#include <exception>

#include "core/work_ahead.h"

namespace chipmunk {

BlockStreamer::BlockStreamer(const Context& context, const std::vector<WeightGroup>& blocks,
                             const UploadProgress& progress)
    : context_(context), host_(blocks.size()) {
  for (const WeightGroup& block : blocks) blocks_.emplace_back(context, block);
  move_to_pinned(progress);
}

BlockStreamer::~BlockStreamer() {
  try {
    release();
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch)
    // A device that takes no commands any more runs no copies either.
  }
}

void BlockStreamer::begin_block(int block) {
  // A forward that an error cut short.
  if (open_ >= 0) end_block(open_);
  if (slots_[0].memory == nullptr) allocate();
  const bool has_other = slots_[1 - current_].memory != nullptr;
  if (slots_[current_].block != block && has_other) current_ = 1 - current_;
  Slot& slot = slots_[current_];
  if (slot.block != block) fetch(block, slot);
  // The other slot's block has ended: while this one computes, the next one comes.
  const int next = (block + 1) % static_cast<int>(blocks_.size());
  Slot& other = slots_[1 - current_];
  if (has_other && other.block != next) fetch(next, other);

  context_.runtime().wait(StreamKind::kCompute, *slot.is_loaded);
  blocks_[static_cast<size_t>(block)].bind(slot.memory);
  open_ = block;
}

void BlockStreamer::end_block(int block) {
  blocks_[static_cast<size_t>(block)].bind_host();
  open_ = -1;
  slots_[current_].is_free = context_.runtime().record(StreamKind::kCompute);
}

void BlockStreamer::release() {
  if (open_ >= 0) end_block(open_);
  for (Slot& slot : slots_) {
    // Memory is freed in the order of the compute stream: not before the copies to it are done.
    if (slot.is_loaded != nullptr) context_.runtime().wait(StreamKind::kCompute, *slot.is_loaded);
    slot = {};
  }
}

void BlockStreamer::move_to_pinned(const UploadProgress& progress) {
  const std::vector<BlockPiece> pieces = cut_into_pieces(blocks_);
  size_t total = 0, done = 0, taken = 0, allowed = 0;
  for (const PackedWeights& block : blocks_) total += block.bytes();
  WorkAhead copying(pieces.size(), [&](size_t i) {
    const BlockPiece& piece = pieces[i];
    blocks_[piece.block].copy(piece.begin, piece.end, static_cast<char*>(host_[piece.block]->data()) + piece.begin);
  });
  const auto take = [&](size_t end) {
    for (; taken < end; ++taken) {
      copying.await(taken);
      done += pieces[taken].bytes();
      if (progress) progress(done, total);
    }
  };
  // While threads copy one block, the next one's memory is locked.
  for (size_t block = 0; block < blocks_.size(); ++block) {
    host_[block] = context_.runtime().allocate_pinned(blocks_[block].bytes());
    const size_t before = allowed;
    while (allowed < pieces.size() && pieces[allowed].block == block) ++allowed;
    copying.allow(allowed);
    take(before);
  }
  take(pieces.size());
  for (size_t block = 0; block < blocks_.size(); ++block) blocks_[block].move_host(host_[block]);
}

void BlockStreamer::allocate() {
  size_t bytes = 0;
  for (const PackedWeights& block : blocks_) bytes = std::max(bytes, block.bytes());
  const size_t count = std::min(slots_.size(), blocks_.size());
  std::array<std::shared_ptr<Storage>, 2> memory;
  for (size_t i = 0; i < count; ++i) memory[i] = context_.runtime().allocate(bytes);
  for (size_t i = 0; i < count; ++i) {
    slots_[i].memory = memory[i];
    slots_[i].is_free = context_.runtime().record(StreamKind::kCompute);
  }
}

void BlockStreamer::fetch(int block, Slot& slot) {
  DeviceRuntime& runtime = context_.runtime();
  const auto index = static_cast<size_t>(block);
  // Should a command fail, what the slot has is unknown.
  slot.block = -1;
  runtime.wait(StreamKind::kCopy, *slot.is_free);
  runtime.copy(slot.memory->data(), context_.device(), host_[index]->data(), Device{}, blocks_[index].bytes(),
               StreamKind::kCopy);
  slot.is_loaded = runtime.record(StreamKind::kCopy);
  slot.block = block;
}

}  // namespace chipmunk
