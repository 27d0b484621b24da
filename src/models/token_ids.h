#pragma once

#include <cstdint>
#include <vector>

#include "core/context.h"

namespace chipmunk {

/// Token ids [batch][tokens] as one i32 tensor [batch * tokens] on the device.
/// Throws kInvalidArgument for an empty batch, rows of different lengths, or an id outside [0, vocab_size).
Tensor upload_token_ids(const Context& context, const std::vector<std::vector<int32_t>>& ids, int64_t vocab_size);

}  // namespace chipmunk
