#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"
#include "text/charsmap.h"
#include "text/tokenizer.h"
#include "text/unigram_model.h"

namespace chipmunk::text {

/// How text becomes words before the unigram search; what tokenizer.json states as normalizer and pre_tokenizer.
/// The defaults are what a spiece.model alone means.
struct T5TextRules {
  struct Step {
    enum class Kind { kCharsMap, kStrip, kReplaceSpaces };
    Kind kind;
    bool strip_left = false;
    bool strip_right = false;
    std::string content;  ///< what two or more spaces become, of kReplaceSpaces
  };
  enum class Prefix { kAlways, kFirst, kNever };

  std::vector<Step> steps{{Step::Kind::kCharsMap, false, false, {}}};
  bool split_white_space = true;    ///< words end at white space, which is dropped
  bool split_words = true;          ///< words start at each space mark
  Prefix prefix = Prefix::kAlways;  ///< which stretches of text get a space mark in front
};

/// T5's tokenizer: literal special tokens, normalization, words that start with a space mark, sentencepiece's unigram
/// search; the end token stands behind.
class T5Tokenizer final : public Tokenizer {
 public:
  T5Tokenizer(TokenizerInfo info, const UnigramSpec& unigram, T5TextRules rules,
              const std::vector<AddedToken>& added_tokens);

  TokenIds encode(std::string_view utf8) const override;

 private:
  std::string normalize(std::string_view text) const;
  std::vector<AddedToken> select(const std::vector<AddedToken>& tokens, bool normalized) const;
  void encode_stretch(std::string_view normalized, bool first, TokenIds& ids) const;
  void encode_marked(std::string_view text, bool first, TokenIds& ids) const;

  UnigramModel model_;
  CharsMap charsmap_;
  T5TextRules rules_;
  AddedTokenMatcher raw_tokens_;
  AddedTokenMatcher normalized_tokens_;
};

}  // namespace chipmunk::text
