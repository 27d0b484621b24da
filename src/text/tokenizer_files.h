#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "text/added_tokens.h"
#include "text/byte_level_bpe.h"
#include "text/t5_tokenizer.h"
#include "text/unigram_model.h"

// Readers of the files of a tokenizer folder. All throw kNotFound if a file that they need does not exist, kIo if it
// cannot be read and kInvalidFile if its content breaks its format.
namespace chipmunk::text {

/// The whole content of a file.
std::string read_file(const std::filesystem::path& file);

/// What tokenizer_config.json and special_tokens_map.json say; both may be absent.
struct TokenizerConfig {
  std::optional<int64_t> model_max_length;           ///< none where absent or a sentinel such as 1e30
  std::map<std::string, AddedToken> special_tokens;  ///< "bos_token" and so on; their ids are not set
  std::vector<AddedToken> added_tokens;              ///< of added_tokens_decoder
  std::optional<int64_t> extra_ids;                  ///< how many <extra_id_N> tokens stand behind T5's pieces
  std::string file;                                  ///< for messages
};
TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder);

/// A byte-pair encoding given as vocab.json and merges.txt; the end-of-word suffix is left empty.
BpeSpec read_bpe_files(const std::filesystem::path& vocab_file, const std::filesystem::path& merges_file);

/// A tokenizer.json: the model of the kind that it has, and the tokens added to it.
struct TokenizerJson {
  std::optional<BpeSpec> bpe;
  std::optional<UnigramSpec> unigram;
  T5TextRules text_rules;  ///< read for unigram models alone
  std::vector<AddedToken> added_tokens;
};
/// Throws kUnsupported, naming it, for a model or a step of another kind.
TokenizerJson read_tokenizer_json(const std::filesystem::path& file);

}  // namespace chipmunk::text
