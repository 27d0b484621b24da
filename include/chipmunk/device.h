#pragma once

#include <string>
#include <string_view>

namespace chipmunk {

enum class DeviceKind { kCpu, kCuda };

/// A place where tensors live and ops run.
struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;

  bool operator==(const Device&) const = default;
};

/// "cpu", "cuda:0".
std::string to_string(Device device);

/// Reads "cpu", "cuda" or "cuda:<index>". Throws kInvalidArgument for anything else ("auto" is the caller's to
/// resolve).
Device parse_device(std::string_view text);

}  // namespace chipmunk
