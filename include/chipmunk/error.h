#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace chipmunk {

/// What went wrong, for programs that react to it; the message is for people.
enum class ErrorCode {
  kInvalidArgument,     ///< a value outside its documented range
  kShapeMismatch,       ///< tensors whose shapes do not fit together
  kUnsupported,         ///< valid, but not something this build or device can do
  kNotFound,            ///< a file, folder or entry that does not exist
  kInvalidFile,         ///< a file whose content breaks its own format
  kInvalidConfig,       ///< a configuration with missing, contradicting or out-of-range values
  kInvalidWeights,      ///< missing, misshapen or unused weights
  kInvalidText,         ///< text that is not valid UTF-8
  kIo,                  ///< reading or writing failed
  kOutOfMemory,         ///< the device or the host has no memory left
  kBackendUnavailable,  ///< the requested device does not exist here or was not built in
  kCancelled,           ///< the caller asked to stop
  kInternal,            ///< a defect in Chipmunk
};

/// The code's name as it stands above without the k, e.g. "ShapeMismatch".
std::string_view to_string(ErrorCode code);

/// The one exception type that the library throws on purpose.
class Error : public std::runtime_error {
 public:
  /// message: what was expected and what was found, one line unless it lists items;
  /// where: the file, tensor or function concerned, put in front of the message if not empty.
  Error(ErrorCode code, const std::string& message, const std::string& where = {});

  ErrorCode code() const { return code_; }
  const std::string& where() const { return where_; }

 private:
  ErrorCode code_;
  std::string where_;
};

}  // namespace chipmunk
