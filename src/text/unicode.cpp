#include "text/unicode.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <cstdlib>
#include <memory>

#include "chipmunk/error.h"

namespace chipmunk::text {
namespace {

const utf8proc_uint8_t* bytes_of(std::string_view text) {
  return reinterpret_cast<const utf8proc_uint8_t*>(text.data());
}

// utf8proc's own step: the length of the sequence, negative if invalid.
utf8proc_ssize_t iterate(std::string_view text, size_t position, utf8proc_int32_t& code_point) {
  return utf8proc_iterate(bytes_of(text) + position, static_cast<utf8proc_ssize_t>(text.size() - position),
                          &code_point);
}

}  // namespace

void check_utf8(std::string_view text) {
  size_t position = 0;
  while (position < text.size()) {
    utf8proc_int32_t code_point = 0;
    const utf8proc_ssize_t length = iterate(text, position, code_point);
    if (length <= 0) {
      throw Error(ErrorCode::kInvalidText, fmt::format("the text is not valid UTF-8 at byte offset {} (byte 0x{:02x})",
                                                       position, static_cast<unsigned char>(text[position])));
    }
    position += static_cast<size_t>(length);
  }
}

char32_t next_code_point(std::string_view text, size_t& position) {
  utf8proc_int32_t code_point = 0;
  const utf8proc_ssize_t length = iterate(text, position, code_point);
  if (length <= 0) throw Error(ErrorCode::kInternal, "text was expected to be checked UTF-8", "next_code_point");
  position += static_cast<size_t>(length);
  return static_cast<char32_t>(code_point);
}

void append_utf8(std::string& out, char32_t code_point) {
  utf8proc_uint8_t buffer[4];
  const utf8proc_ssize_t length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), buffer);
  out.append(reinterpret_cast<const char*>(buffer), static_cast<size_t>(length));
}

bool is_white_space(char32_t code_point) {
  if (code_point <= 0x20) return code_point == 0x20 || (code_point >= 0x09 && code_point <= 0x0d);
  if (code_point == 0x85) return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code_point))) {
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return true;
    default: return false;
  }
}

bool is_word_character(char32_t code_point) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code_point))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_PC: return true;
    default: return false;
  }
}

std::string to_nfc(std::string_view text) {
  utf8proc_uint8_t* raw = nullptr;
  // Flags. NOLINTNEXTLINE(clang-analyzer-optin.core.EnumCastOutOfRange)
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  const utf8proc_ssize_t length =
      utf8proc_map(bytes_of(text), static_cast<utf8proc_ssize_t>(text.size()), &raw, options);
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(raw, &std::free);
  if (length < 0) throw Error(ErrorCode::kInvalidText, utf8proc_errmsg(length), "Unicode normalization");
  return std::string(reinterpret_cast<const char*>(raw), static_cast<size_t>(length));
}

std::string to_lower_case(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t position = 0; position < text.size();) {
    const char32_t code_point = next_code_point(text, position);
    if (code_point == 0x130) {
      // Dotted capital I is the one code point whose full lower case is longer than one: i and a combining dot.
      out += "i\u0307";
    } else {
      append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code_point))));
    }
  }
  return out;
}

std::string collapse_white_space(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool in_white_space = false;
  for (size_t position = 0; position < text.size();) {
    const size_t start = position;
    const bool white_space = is_white_space(next_code_point(text, position));
    if (!white_space) {
      out += text.substr(start, position - start);
    } else if (!in_white_space) {
      out += ' ';
    }
    in_white_space = white_space;
  }
  return out;
}

std::string_view strip_white_space(std::string_view text, bool left, bool right) {
  size_t begin = 0;
  size_t end = 0;  // behind the last code point that is not white space
  bool seen_text = false;
  for (size_t position = 0; position < text.size();) {
    if (is_white_space(next_code_point(text, position))) {
      if (!seen_text) begin = position;
    } else {
      seen_text = true;
      end = position;
    }
  }
  if (!left) begin = 0;
  if (!right) end = text.size();
  return end > begin ? text.substr(begin, end - begin) : std::string_view();
}

size_t grapheme_end(std::string_view text, size_t position) {
  auto previous = static_cast<utf8proc_int32_t>(next_code_point(text, position));
  utf8proc_int32_t state = 0;
  while (position < text.size()) {
    size_t behind = position;
    const auto next = static_cast<utf8proc_int32_t>(next_code_point(text, behind));
    if (utf8proc_grapheme_break_stateful(previous, next, &state)) break;
    previous = next;
    position = behind;
  }
  return position;
}

}  // namespace chipmunk::text
