#include "text/tokenizer_factory.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "chipmunk/error.h"
#include "text/clip_tokenizer.h"
#include "text/sentencepiece_file.h"
#include "text/t5_tokenizer.h"
#include "text/tokenizer_files.h"

namespace chipmunk {
namespace {

using text::AddedToken;
using text::TokenizerConfig;
using Vocabulary = std::unordered_map<std::string, int32_t>;

// T5 was trained with this many sentinels.
constexpr int64_t kDefaultExtraIds = 100;
// No tokenizer has this many; a larger number is a damaged file, not a reason to use up the memory.
constexpr int64_t kMaxExtraIds = 1 << 16;

void require_folder(const std::filesystem::path& folder) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored)) {
    throw Error(ErrorCode::kNotFound, "no such folder", folder.string());
  }
}

bool has_file(const std::filesystem::path& folder, const char* name) {
  std::error_code ignored;
  return std::filesystem::exists(folder / name, ignored);
}

// Adds the tokens to the vocabulary. A token that it already has must have the same id there.
void merge_added_tokens(const std::vector<AddedToken>& tokens, Vocabulary& vocab, const std::string& file) {
  for (const AddedToken& token : tokens) {
    const auto [entry, inserted] = vocab.emplace(token.content, token.id);
    if (!inserted && entry->second != token.id) {
      throw Error(ErrorCode::kInvalidFile,
                  fmt::format("added token \"{}\": expected the vocabulary's id {}, found {}", token.content,
                              entry->second, token.id),
                  file);
    }
  }
}

// Which token plays a role, from the configuration, and its id.
AddedToken special_token(const TokenizerConfig& config, const std::string& role, const std::string& fallback,
                         const Vocabulary& vocab) {
  AddedToken token;
  token.content = fallback;
  if (const auto found = config.special_tokens.find(role); found != config.special_tokens.end()) token = found->second;
  const auto entry = vocab.find(token.content);
  if (entry == vocab.end()) {
    throw Error(ErrorCode::kInvalidConfig,
                fmt::format("{}: expected a token of the vocabulary, found \"{}\"", role, token.content), config.file);
  }
  token.id = entry->second;
  return token;
}

int32_t size_of(const Vocabulary& vocab) {
  int32_t largest = -1;
  for (const auto& [token, id] : vocab) largest = std::max(largest, id);
  return largest + 1;
}

// A token that plays a role is matched in text even where no list names it.
void add_if_absent(std::vector<AddedToken>& tokens, const AddedToken& token) {
  const auto same = [&](const AddedToken& other) { return other.content == token.content; };
  if (std::none_of(tokens.begin(), tokens.end(), same)) tokens.push_back(token);
}

// The tokens behind T5's pieces where no file lists them.
std::vector<AddedToken> sentinels(const TokenizerConfig& config, size_t piece_count) {
  const int64_t count = config.extra_ids.value_or(kDefaultExtraIds);
  if (count > kMaxExtraIds) {
    throw Error(ErrorCode::kInvalidConfig, fmt::format("extra_ids: expected at most {}, found {}", kMaxExtraIds, count),
                config.file);
  }
  std::vector<AddedToken> tokens;
  for (int64_t i = count; i-- > 0;) {
    AddedToken token;
    token.content = fmt::format("<extra_id_{}>", i);
    token.id = static_cast<int32_t>(static_cast<int64_t>(piece_count) + count - 1 - i);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace

std::unique_ptr<Tokenizer> load_clip_tokenizer(const std::filesystem::path& folder) {
  require_folder(folder);
  const TokenizerConfig config = text::read_tokenizer_config(folder);
  text::BpeSpec bpe;
  std::vector<AddedToken> added = config.added_tokens;
  std::string added_file = config.file;
  if (!has_file(folder, "vocab.json") && !has_file(folder, "merges.txt") && has_file(folder, "tokenizer.json")) {
    const std::filesystem::path file = folder / "tokenizer.json";
    text::TokenizerJson tokenizer = text::read_tokenizer_json(file);
    if (!tokenizer.bpe || tokenizer.bpe->end_of_word_suffix != "</w>") {
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("expected a BPE model with the end-of-word suffix \"</w>\", as CLIP's, found {}",
                              tokenizer.bpe ? fmt::format("the suffix \"{}\"", tokenizer.bpe->end_of_word_suffix)
                                            : "a unigram model"),
                  file.string());
    }
    bpe = std::move(*tokenizer.bpe);
    if (!tokenizer.added_tokens.empty()) {
      added = std::move(tokenizer.added_tokens);
      added_file = file.string();
    }
  } else {
    bpe = text::read_bpe_files(folder / "vocab.json", folder / "merges.txt");
    bpe.end_of_word_suffix = "</w>";
  }

  Vocabulary vocab = bpe.vocab;
  merge_added_tokens(added, vocab, added_file);
  const AddedToken bos = special_token(config, "bos_token", "<|startoftext|>", vocab);
  const AddedToken eos = special_token(config, "eos_token", "<|endoftext|>", vocab);
  const AddedToken pad = special_token(config, "pad_token", eos.content, vocab);
  for (const AddedToken& token : {bos, eos, pad}) add_if_absent(added, token);

  TokenizerInfo info;
  info.bos_id = bos.id;
  info.eos_id = eos.id;
  info.pad_id = pad.id;
  info.vocab_size = size_of(vocab);
  info.model_max_length = config.model_max_length;
  return std::make_unique<text::ClipTokenizer>(info, bpe, added);
}

std::unique_ptr<Tokenizer> load_t5_tokenizer(const std::filesystem::path& folder) {
  require_folder(folder);
  const TokenizerConfig config = text::read_tokenizer_config(folder);
  text::UnigramSpec unigram;
  text::T5TextRules rules;
  std::vector<AddedToken> added = config.added_tokens;
  std::string added_file = config.file;
  if (has_file(folder, "tokenizer.json")) {
    const std::filesystem::path file = folder / "tokenizer.json";
    text::TokenizerJson tokenizer = text::read_tokenizer_json(file);
    if (!tokenizer.unigram) {
      throw Error(ErrorCode::kUnsupported, "expected a unigram model, as T5's, found a BPE model", file.string());
    }
    unigram = std::move(*tokenizer.unigram);
    rules = std::move(tokenizer.text_rules);
    if (!tokenizer.added_tokens.empty()) {
      added = std::move(tokenizer.added_tokens);
      added_file = file.string();
    }
  } else {
    const std::filesystem::path file = folder / "spiece.model";
    if (!has_file(folder, "spiece.model")) {
      throw Error(ErrorCode::kNotFound, "expected tokenizer.json or spiece.model, found neither", folder.string());
    }
    unigram = text::parse_sentencepiece_model(text::read_file(file), file.string());
    if (added.empty()) added = sentinels(config, unigram.pieces.size());
  }

  Vocabulary vocab;
  for (size_t id = 0; id < unigram.pieces.size(); ++id) {
    vocab.emplace(unigram.pieces[id].text, static_cast<int32_t>(id));
  }
  merge_added_tokens(added, vocab, added_file);
  const AddedToken eos = special_token(config, "eos_token", "</s>", vocab);
  const AddedToken pad = special_token(config, "pad_token", "<pad>", vocab);
  const AddedToken unk = special_token(config, "unk_token", "<unk>", vocab);
  for (const AddedToken& token : {eos, pad, unk}) add_if_absent(added, token);

  TokenizerInfo info;
  info.eos_id = eos.id;
  info.pad_id = pad.id;
  info.vocab_size = size_of(vocab);
  info.model_max_length = config.model_max_length;
  return std::make_unique<text::T5Tokenizer>(info, unigram, std::move(rules), added);
}

}  // namespace chipmunk
