#include "device_option.h"

#include "backend.h"
#include "chipmunk/error.h"

namespace chipmunk::cli {

Device choose_device(const std::string& name) {
  if (name == "auto") return {cuda_device_count() > 0 ? DeviceKind::kCuda : DeviceKind::kCpu, 0};
  try {
    return parse_device(name);
  } catch (const Error&) {
    throw Error(ErrorCode::kInvalidArgument,
                "--device: expected auto, cpu, cuda or cuda:<index>, found \"" + name + "\"");
  }
}

std::optional<Offload> parse_offload(const std::string& name) {
  if (name == "none") return Offload::kNone;
  if (name == "text") return Offload::kText;
  if (name == "blocks") return Offload::kBlocks;
  return std::nullopt;
}

}  // namespace chipmunk::cli
