#include "models/upload.h"

#include <algorithm>
#include <deque>
#include <exception>

#include "core/work_ahead.h"

namespace chipmunk {
namespace {

/// Pieces in page-locked memory: one for each thread that fills them, and those on their way to the device, which keep
/// a fast bus busy for half a millisecond whatever the host does meanwhile.
constexpr size_t kBuffers = 24;
constexpr size_t kOnTheirWay = 8;

/// At its end the compute stream waits for the copy stream.
class CopiesComeFirst {
 public:
  explicit CopiesComeFirst(DeviceRuntime& runtime) : runtime_(runtime) {}
  ~CopiesComeFirst() {
    try {
      runtime_.wait(StreamKind::kCompute, *runtime_.record(StreamKind::kCopy));
    } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch)
      // A device that takes no commands any more runs no copies either.
    }
  }
  CopiesComeFirst(const CopiesComeFirst&) = delete;
  CopiesComeFirst& operator=(const CopiesComeFirst&) = delete;

 private:
  DeviceRuntime& runtime_;
};

/// Page-locked memory for several pieces, which take turns.
class Staging {
 public:
  Staging(DeviceRuntime& runtime, const std::vector<BlockPiece>& pieces)
      : count_(std::min(kBuffers, pieces.size())),
        buffer_bytes_(std::max_element(pieces.begin(), pieces.end(),
                                       [](const BlockPiece& a, const BlockPiece& b) { return a.bytes() < b.bytes(); })
                          ->bytes()),
        memory_(runtime.allocate_pinned(count_ * buffer_bytes_)) {}

  size_t count() const { return count_; }
  char* buffer(size_t piece) const { return static_cast<char*>(memory_->data()) + piece % count_ * buffer_bytes_; }

 private:
  size_t count_, buffer_bytes_;
  std::shared_ptr<Storage> memory_;
};

}  // namespace

void upload(const Context& context, const std::vector<PackedWeights>& weights,
            const std::vector<std::shared_ptr<Storage>>& blocks, const UploadProgress& progress) {
  const std::vector<BlockPiece> pieces = cut_into_pieces(weights);
  if (pieces.empty()) return;
  size_t done = 0, total = 0;
  for (const BlockPiece& piece : pieces) total += piece.bytes();

  DeviceRuntime& runtime = context.runtime();
  const Staging staging(runtime, pieces);
  // Memory is handed out in the order of the compute stream.
  runtime.wait(StreamKind::kCopy, *runtime.record(StreamKind::kCompute));
  const CopiesComeFirst copies_come_first(runtime);
  WorkAhead reading(pieces.size(), [&](size_t i) {
    weights[pieces[i].block].copy(pieces[i].begin, pieces[i].end, staging.buffer(i));
  });
  size_t allowed = staging.count();
  reading.allow(allowed);
  std::deque<std::unique_ptr<Event>> on_their_way;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const BlockPiece& piece = pieces[i];
    reading.await(i);
    runtime.copy(static_cast<char*>(blocks[piece.block]->data()) + piece.begin, context.device(), staging.buffer(i),
                 Device{}, piece.bytes(), StreamKind::kCopy);
    on_their_way.push_back(runtime.record(StreamKind::kCopy));
    if (on_their_way.size() > kOnTheirWay) {
      runtime.synchronize(*on_their_way.front());
      on_their_way.pop_front();
      reading.allow(++allowed);
    }
    done += piece.bytes();
    if (progress) progress(done, total);
  }
}

}  // namespace chipmunk
