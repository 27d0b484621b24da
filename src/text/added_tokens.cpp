#include "text/added_tokens.h"

#include <algorithm>
#include <utility>

#include "text/unicode.h"

namespace chipmunk::text {
namespace {

// Whether the code point next to the border at `position` belongs to a word.
bool word_before(std::string_view text, size_t position) {
  if (position == 0) return false;
  size_t start = position - 1;
  while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xc0) == 0x80) --start;
  return is_word_character(next_code_point(text, start));
}

bool word_behind(std::string_view text, size_t position) {
  return position < text.size() && is_word_character(next_code_point(text, position));
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::erase_if(tokens_, [](const AddedToken& token) { return token.content.empty(); });
  std::stable_sort(tokens_.begin(), tokens_.end(),
                   [](const AddedToken& a, const AddedToken& b) { return a.content.size() > b.content.size(); });
  for (const AddedToken& token : tokens_) first_bytes_.set(static_cast<unsigned char>(token.content.front()));
}

const AddedToken* AddedTokenMatcher::match_at(std::string_view text, size_t position) const {
  if (!first_bytes_.test(static_cast<unsigned char>(text[position]))) return nullptr;
  const std::string_view rest = text.substr(position);
  for (const AddedToken& token : tokens_) {
    if (rest.starts_with(token.content)) return &token;
  }
  return nullptr;
}

std::vector<AddedTokenMatcher::Piece> AddedTokenMatcher::split(std::string_view text) const {
  std::vector<Piece> pieces;
  size_t open = 0;  // start of the stretch that no match has taken yet
  for (size_t position = 0; position < text.size();) {
    const AddedToken* token = match_at(text, position);
    if (token == nullptr) {
      ++position;
      continue;
    }
    size_t begin = position;
    size_t end = position + token->content.size();
    position = end;
    if (token->single_word && (word_before(text, begin) || word_behind(text, end))) continue;
    if (token->strip_left) begin = open + strip_white_space(text.substr(open, begin - open), false, true).size();
    if (token->strip_right) end = text.size() - strip_white_space(text.substr(end), true, false).size();
    if (begin > open) pieces.push_back({text.substr(open, begin - open), kNoToken});
    pieces.push_back({text.substr(begin, end - begin), token->id});
    open = position = end;
  }
  if (open < text.size()) pieces.push_back({text.substr(open), kNoToken});
  return pieces;
}

}  // namespace chipmunk::text
