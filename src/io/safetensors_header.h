#pragma once

#include <map>
#include <string>
#include <string_view>

#include "io/safetensors.h"

namespace chipmunk {

struct SafetensorsHeader {
  std::map<std::string, SafetensorsEntry> entries;  ///< offsets count from the start of the data section
  std::map<std::string, std::string> metadata;
};

/// Reads the JSON text of a header and checks each entry by itself (types, sizes, begin <= end, shape x type = bytes).
/// `where` names the file in errors. Throws kInvalidFile or kUnsupported, see SafetensorsFile.
SafetensorsHeader parse_safetensors_header(std::string_view text, const std::string& where);

/// The header's JSON text, padded with spaces to a multiple of 8 bytes. Throws kInvalidText for text that is not UTF-8.
std::string format_safetensors_header(const SafetensorsHeader& header);

/// The format's spelling of a dtype, e.g. "F8_E4M3".
std::string safetensors_name(DType dtype);

}  // namespace chipmunk
