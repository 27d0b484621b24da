#include "text/t5_tokenizer.h"

#include <algorithm>
#include <utility>

#include "text/unicode.h"

namespace chipmunk::text {
namespace {

// U+2581, which stands for a space inside pieces.
constexpr std::string_view kSpaceMark = "\u2581";

std::string replace_spaces(std::string_view text, std::string_view content) {
  std::string out;
  out.reserve(text.size());
  for (size_t position = 0; position < text.size();) {
    const size_t end = std::min(text.find_first_not_of(' ', position), text.size());
    if (end - position >= 2) {
      out += content;
      position = end;
    } else {
      out += text[position++];
    }
  }
  return out;
}

}  // namespace

T5Tokenizer::T5Tokenizer(TokenizerInfo info, const UnigramSpec& unigram, T5TextRules rules,
                         const std::vector<AddedToken>& added_tokens)
    : Tokenizer(info),
      model_(unigram),
      charsmap_(unigram.charsmap, unigram.file),
      rules_(std::move(rules)),
      raw_tokens_(select(added_tokens, false)),
      normalized_tokens_(select(added_tokens, true)) {}

std::vector<AddedToken> T5Tokenizer::select(const std::vector<AddedToken>& tokens, bool normalized) const {
  std::vector<AddedToken> selected;
  for (AddedToken token : tokens) {
    if (token.normalized != normalized) continue;
    if (normalized) token.content = normalize(token.content);
    selected.push_back(std::move(token));
  }
  return selected;
}

std::string T5Tokenizer::normalize(std::string_view text) const {
  std::string normalized(text);
  for (const T5TextRules::Step& step : rules_.steps) {
    switch (step.kind) {
      case T5TextRules::Step::Kind::kCharsMap: normalized = charsmap_.normalize(normalized); break;
      case T5TextRules::Step::Kind::kStrip:
        normalized = std::string(strip_white_space(normalized, step.strip_left, step.strip_right));
        break;
      case T5TextRules::Step::Kind::kReplaceSpaces: normalized = replace_spaces(normalized, step.content); break;
    }
  }
  return normalized;
}

TokenIds T5Tokenizer::encode(std::string_view utf8) const {
  check_utf8(utf8);
  TokenIds ids;
  for (const AddedTokenMatcher::Piece& piece : raw_tokens_.split(utf8)) {
    if (piece.id != AddedTokenMatcher::kNoToken) {
      ids.push_back(piece.id);
      continue;
    }
    const std::string normalized = normalize(piece.text);
    const bool at_start = piece.text.data() == utf8.data();
    for (const AddedTokenMatcher::Piece& inner : normalized_tokens_.split(normalized)) {
      if (inner.id != AddedTokenMatcher::kNoToken) {
        ids.push_back(inner.id);
      } else {
        encode_stretch(inner.text, at_start && inner.text.data() == normalized.data(), ids);
      }
    }
  }
  ids.push_back(info().eos_id);
  return ids;
}

void T5Tokenizer::encode_stretch(std::string_view normalized, bool first, TokenIds& ids) const {
  if (!rules_.split_white_space) {
    encode_marked(normalized, first, ids);
    return;
  }
  size_t word = 0;
  for (size_t position = 0; position < normalized.size();) {
    const size_t start = position;
    if (!is_white_space(next_code_point(normalized, position))) continue;
    encode_marked(normalized.substr(word, start - word), first && word == 0, ids);
    word = position;
  }
  encode_marked(normalized.substr(word), first && word == 0, ids);
}

void T5Tokenizer::encode_marked(std::string_view text, bool first, TokenIds& ids) const {
  if (text.empty()) return;
  std::string marked;
  marked.reserve(text.size() + 2 * kSpaceMark.size());
  const bool wants_prefix =
      rules_.prefix == T5TextRules::Prefix::kAlways || (rules_.prefix == T5TextRules::Prefix::kFirst && first);
  if (wants_prefix && text.front() != ' ' && !text.starts_with(kSpaceMark)) marked += kSpaceMark;
  for (const char c : text) {
    if (c == ' ') {
      marked += kSpaceMark;
    } else {
      marked += c;
    }
  }
  const std::string_view all(marked);
  if (!rules_.split_words) {
    model_.encode_word(all, ids);
    return;
  }
  for (size_t begin = 0; begin < all.size();) {
    const size_t end = std::min(all.find(kSpaceMark, begin + 1), all.size());
    model_.encode_word(all.substr(begin, end - begin), ids);
    begin = end;
  }
}

}  // namespace chipmunk::text
