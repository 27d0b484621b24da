#pragma once

#include <memory>
#include <vector>

#include "core/context.h"
#include "models/packed_weights.h"
#include "models/weight_group.h"

namespace chipmunk {

/// Fills blocks of device memory, one for each of `weights`, through page-locked buffers: threads copy from where the
/// weights are, a mapped file mostly, while the copy stream sends what they have copied. Returns when all is queued;
/// what the compute stream does next comes after the copies, also if this throws (kOutOfMemory, what progress throws).
void upload(const Context& context, const std::vector<PackedWeights>& weights,
            const std::vector<std::shared_ptr<Storage>>& blocks, const UploadProgress& progress);

}  // namespace chipmunk
