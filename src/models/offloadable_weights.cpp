#include "models/offloadable_weights.h"

#include <memory>

#include "models/upload.h"

namespace chipmunk {

OffloadableWeights::OffloadableWeights(const Context& context, const std::vector<WeightGroup>& groups)
    : context_(context) {
  if (context.device().kind == DeviceKind::kCpu) return;
  for (const WeightGroup& group : groups) groups_.emplace_back(context, group);
}

size_t OffloadableWeights::bytes() const {
  size_t total = 0;
  for (const PackedWeights& group : groups_) total += group.bytes();
  return total;
}

void OffloadableWeights::upload(const UploadProgress& progress) {
  if (on_device_ || bytes() == 0) return;
  std::vector<std::shared_ptr<Storage>> blocks;
  for (const PackedWeights& group : groups_) blocks.push_back(context_.runtime().allocate(group.bytes()));
  chipmunk::upload(context_, groups_, blocks, progress);
  for (size_t i = 0; i < groups_.size(); ++i) groups_[i].bind(blocks[i]);
  on_device_ = true;
}

void OffloadableWeights::release() {
  if (!on_device_) return;
  for (const PackedWeights& group : groups_) group.bind_host();
  on_device_ = false;
}

}  // namespace chipmunk
