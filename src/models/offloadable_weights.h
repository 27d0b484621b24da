#pragma once

#include <cstddef>
#include <vector>

#include "core/context.h"
#include "models/packed_weights.h"
#include "models/weight_group.h"

namespace chipmunk {

/// Weights that go to a device and may come back: the host tensors stay bound here, so that nothing is copied on the
/// way back. On the CPU there is nothing to move, and every call does nothing.
class OffloadableWeights {
 public:
  /// The model that the groups point into must stay in its place. Nothing is moved yet.
  OffloadableWeights(const Context& context, const std::vector<WeightGroup>& groups);

  /// What upload() sends.
  size_t bytes() const;
  bool on_device() const { return on_device_; }

  /// Makes the model's tensors copies on the device, a group in one allocation, unless they are there already. In the
  /// order of the compute stream, so that the model can be used at once. Throws kOutOfMemory or what progress throws;
  /// then all of them are on the host.
  void upload(const UploadProgress& progress);
  /// Makes the model's tensors the host's again. What was queued before on the compute stream may still use the copies.
  void release();

 private:
  Context context_;
  std::vector<PackedWeights> groups_;
  bool on_device_ = false;
};

}  // namespace chipmunk
