#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

// All functions but check_utf8 expect valid UTF-8.
namespace chipmunk::text {

/// Throws kInvalidText with the offset of the first byte that is not part of a valid UTF-8 sequence.
void check_utf8(std::string_view text);

/// The code point that starts at `position`, which moves behind it.
char32_t next_code_point(std::string_view text, size_t& position);

void append_utf8(std::string& out, char32_t code_point);

/// Unicode's White_Space property.
bool is_white_space(char32_t code_point);

/// A letter, mark, digit or connector: what \w matches.
bool is_word_character(char32_t code_point);

/// Unicode normalization form C.
std::string to_nfc(std::string_view text);

/// Each code point's own lower case: no rule looks at neighbours (a final sigma stays a plain one).
std::string to_lower_case(std::string_view text);

/// Every run of white space becomes one space.
std::string collapse_white_space(std::string_view text);

/// The text without the white space at its ends, as asked.
std::string_view strip_white_space(std::string_view text, bool left, bool right);

/// The end of the extended grapheme cluster that starts at `position` (Unicode annex 29).
size_t grapheme_end(std::string_view text, size_t position);

}  // namespace chipmunk::text
