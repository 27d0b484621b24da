#pragma once

#include <filesystem>
#include <memory>

#include "text/tokenizer.h"

// Tokenizers from the folders of a checkpoint. Both throw
//   kNotFound       the folder, or a file that it needs, does not exist;
//   kInvalidFile    a file breaks its format, or two files contradict each other;
//   kInvalidConfig  a setting is out of range or names a token that does not exist;
//   kUnsupported    the files ask for a kind of tokenizer that is not built in.
namespace chipmunk {

/// CLIP's: vocab.json and merges.txt, or else tokenizer.json with a BPE model; special tokens and model_max_length
/// from tokenizer_config.json and special_tokens_map.json where they exist.
std::unique_ptr<Tokenizer> load_clip_tokenizer(const std::filesystem::path& folder);

/// T5's: tokenizer.json with a unigram model, or else spiece.model; the rest as above. Without tokenizer.json the
/// <extra_id_N> tokens that the configuration counts (100 if it does not) stand behind the pieces, the last one first.
std::unique_ptr<Tokenizer> load_t5_tokenizer(const std::filesystem::path& folder);

}  // namespace chipmunk
