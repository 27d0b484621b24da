#pragma once

#include <string_view>
#include <vector>

#include "text/added_tokens.h"
#include "text/byte_level_bpe.h"
#include "text/regex_splitter.h"
#include "text/tokenizer.h"

namespace chipmunk::text {

/// CLIP's tokenizer, as the field's fast implementation does it: literal special tokens, NFC, white space collapsed,
/// lower case, CLIP's splitting expression, byte-pair encoding; the result stands between begin and end token.
class ClipTokenizer final : public Tokenizer {
 public:
  ClipTokenizer(TokenizerInfo info, const BpeSpec& bpe, const std::vector<AddedToken>& added_tokens);

  TokenIds encode(std::string_view utf8) const override;

 private:
  void encode_words(std::string_view normalized, TokenIds& ids) const;

  ByteLevelBpe bpe_;
  AddedTokenMatcher raw_tokens_;
  AddedTokenMatcher normalized_tokens_;
  RegexSplitter words_with_markers_;
  RegexSplitter words_;
};

}  // namespace chipmunk::text
