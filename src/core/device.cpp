#include "chipmunk/device.h"

#include <charconv>

#include "chipmunk/error.h"

namespace chipmunk {

std::string to_string(Device device) {
  return device.kind == DeviceKind::kCpu ? "cpu" : "cuda:" + std::to_string(device.index);
}

Device parse_device(std::string_view text) {
  if (text == "cpu") return {DeviceKind::kCpu, 0};
  if (text == "cuda") return {DeviceKind::kCuda, 0};
  constexpr std::string_view kPrefix = "cuda:";
  if (text.starts_with(kPrefix)) {
    const std::string_view digits = text.substr(kPrefix.size());
    int index = -1;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    if (error == std::errc() && end == digits.data() + digits.size() && index >= 0) return {DeviceKind::kCuda, index};
  }
  throw Error(ErrorCode::kInvalidArgument,
              "unknown device \"" + std::string(text) + "\": expected cpu, cuda or cuda:<index>");
}

}  // namespace chipmunk
