#include "chipmunk/error.h"

namespace chipmunk {

std::string_view to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return "InvalidArgument";
    case ErrorCode::kShapeMismatch: return "ShapeMismatch";
    case ErrorCode::kUnsupported: return "Unsupported";
    case ErrorCode::kNotFound: return "NotFound";
    case ErrorCode::kInvalidFile: return "InvalidFile";
    case ErrorCode::kInvalidConfig: return "InvalidConfig";
    case ErrorCode::kInvalidWeights: return "InvalidWeights";
    case ErrorCode::kInvalidText: return "InvalidText";
    case ErrorCode::kIo: return "Io";
    case ErrorCode::kOutOfMemory: return "OutOfMemory";
    case ErrorCode::kBackendUnavailable: return "BackendUnavailable";
    case ErrorCode::kCancelled: return "Cancelled";
    case ErrorCode::kInternal: return "Internal";
  }
  return "Unknown";
}

Error::Error(ErrorCode code, const std::string& message, const std::string& where)
    : std::runtime_error(where.empty() ? message : where + ": " + message), code_(code), where_(where) {}

}  // namespace chipmunk
