#include "text/clip_tokenizer.h"

#include <string>

#include "text/unicode.h"

namespace chipmunk::text {
namespace {

// Contractions, runs of letters, single digits, runs of anything else; white space is dropped. Its set is written out
// because PCRE2's own \s contains U+180E, which is no white space since Unicode 6.3.
const std::string kWords = R"('s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\x{09}-\x{0d}\x{85}\p{Z}\p{L}\p{N}]+)";
const std::string kMarkers = R"(<\|startoftext\|>|<\|endoftext\|>|)";

std::string normalize(std::string_view text) { return to_lower_case(collapse_white_space(to_nfc(text))); }

std::vector<AddedToken> select(const std::vector<AddedToken>& tokens, bool normalized) {
  std::vector<AddedToken> selected;
  for (AddedToken token : tokens) {
    if (token.normalized != normalized) continue;
    if (normalized) token.content = normalize(token.content);
    selected.push_back(std::move(token));
  }
  return selected;
}

}  // namespace

ClipTokenizer::ClipTokenizer(TokenizerInfo info, const BpeSpec& bpe, const std::vector<AddedToken>& added_tokens)
    : Tokenizer(info),
      bpe_(bpe),
      raw_tokens_(select(added_tokens, false)),
      normalized_tokens_(select(added_tokens, true)),
      words_with_markers_(kMarkers + kWords),
      words_(kWords) {}

TokenIds ClipTokenizer::encode(std::string_view utf8) const {
  check_utf8(utf8);
  TokenIds ids;
  if (const auto bos_id = info().bos_id) ids.push_back(*bos_id);
  for (const AddedTokenMatcher::Piece& piece : raw_tokens_.split(utf8)) {
    if (piece.id != AddedTokenMatcher::kNoToken) {
      ids.push_back(piece.id);
      continue;
    }
    const std::string normalized = normalize(piece.text);
    for (const AddedTokenMatcher::Piece& inner : normalized_tokens_.split(normalized)) {
      if (inner.id != AddedTokenMatcher::kNoToken) {
        ids.push_back(inner.id);
      } else {
        encode_words(inner.text, ids);
      }
    }
  }
  ids.push_back(info().eos_id);
  return ids;
}

void ClipTokenizer::encode_words(std::string_view normalized, TokenIds& ids) const {
  for (const std::string_view piece : words_with_markers_.matches(normalized)) {
    // A marker that is no special token here (written in capitals, say) ends a word, but is itself split like text.
    for (const std::string_view word : words_.matches(piece)) bpe_.encode_word(word, ids);
  }
}

}  // namespace chipmunk::text
