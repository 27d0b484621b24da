#pragma once

#include <optional>
#include <string>

#include "chipmunk/device.h"
#include "chipmunk/pipeline.h"

namespace chipmunk::cli {

/// The device that --device names; "auto" is the first CUDA device, or the CPU where there is none. Throws
/// kInvalidArgument for anything that is no device's name.
Device choose_device(const std::string& name);

/// What --offload names: none, text or blocks; nothing for any other name.
std::optional<Offload> parse_offload(const std::string& name);

}  // namespace chipmunk::cli
