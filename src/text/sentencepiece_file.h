#pragma once

#include <string>
#include <string_view>

#include "text/unigram_model.h"

namespace chipmunk::text {

/// The content of a spiece.model: bytes of a protocol buffer message "ModelProto"; file: for messages.
/// Throws kInvalidFile if the bytes are damaged, kUnsupported if the model is not of the unigram kind.
UnigramSpec parse_sentencepiece_model(std::string_view bytes, const std::string& file);

/// The bytes of a ModelProto that holds the vocabulary and no normalization at all, as UnigramModel needs it.
std::string write_sentencepiece_model(const UnigramSpec& spec);

}  // namespace chipmunk::text
