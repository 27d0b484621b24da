#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace chipmunk {

using TokenIds = std::vector<int32_t>;

/// Token ids brought to the fixed length that a text encoder reads.
struct FixedLengthTokens {
  TokenIds ids;                   ///< exactly the requested number of ids
  int64_t length_before_padding;  ///< ids that come from the text, special tokens included
  int64_t full_length;            ///< what it would be without truncation

  bool truncated() const { return full_length > length_before_padding; }
};

/// What a tokenizer's files say besides the mapping itself.
struct TokenizerInfo {
  std::optional<int32_t> bos_id;  ///< put in front of every text; none for T5
  int32_t eos_id = 0;             ///< put behind every text
  int32_t pad_id = 0;
  int32_t vocab_size = 0;                   ///< one above the largest id
  std::optional<int64_t> model_max_length;  ///< none where the files state no limit
};

/// Text to token ids. Immutable after loading: encode() may run on several threads at once.
class Tokenizer {
 public:
  explicit Tokenizer(TokenizerInfo info) : info_(info) {}
  virtual ~Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  /// All ids of the text, special tokens included, never truncated.
  /// Throws kInvalidText, with the byte offset, if the text is not valid UTF-8. A NUL is a character like any other.
  virtual TokenIds encode(std::string_view utf8) const = 0;

  const TokenizerInfo& info() const { return info_; }

 private:
  TokenizerInfo info_;
};

/// Cuts ids (of encode()) to `length`, the end token staying last, or fills them up with the padding token behind.
/// Throws kInvalidArgument if not even the special tokens fit.
FixedLengthTokens pad_or_truncate(const TokenIds& ids, int64_t length, const TokenizerInfo& info);

/// encode() and pad_or_truncate() in one call.
FixedLengthTokens encode_to_length(const Tokenizer& tokenizer, std::string_view utf8, int64_t length);

}  // namespace chipmunk
