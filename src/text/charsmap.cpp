#include "text/charsmap.h"

#include <fmt/format.h>

#include <utility>

#include "chipmunk/error.h"
#include "text/unicode.h"

namespace chipmunk::text {
namespace {

// Fields of a unit of the double-array trie.
bool has_leaf(uint32_t unit) { return ((unit >> 8) & 1) != 0; }
uint32_t value(uint32_t unit) { return unit & 0x7fffffffU; }
// Bit 31 marks units that hold values: they never equal a byte.
uint32_t label(uint32_t unit) { return unit & 0x800000ffU; }
uint32_t offset(uint32_t unit) { return (unit >> 10) << ((unit & 0x200U) >> 6); }

uint32_t read_u32(std::string_view bytes) {
  uint32_t result = 0;
  for (size_t i = 4; i-- > 0;) result = (result << 8) | static_cast<unsigned char>(bytes[i]);
  return result;
}

// Longer clusters go code point by code point.
constexpr size_t kMaxWholeCluster = 5;

}  // namespace

CharsMap::CharsMap(std::string_view blob, std::string where) : where_(std::move(where)) {
  if (blob.empty()) return;
  const size_t trie_bytes = blob.size() < 4 ? 0 : read_u32(blob);
  if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes > blob.size() - 4) {
    throw Error(ErrorCode::kInvalidFile,
                fmt::format("the character map is damaged: a trie of {} bytes in {} bytes", trie_bytes, blob.size()),
                where_);
  }
  trie_.resize(trie_bytes / 4);
  for (size_t i = 0; i < trie_.size(); ++i) trie_[i] = read_u32(blob.substr(4 + 4 * i));
  replacements_ = blob.substr(4 + trie_bytes);
  if (replacements_.empty() || replacements_.back() != '\0') {
    throw Error(ErrorCode::kInvalidFile, "the character map is damaged: its last replacement has no end", where_);
  }
  try {
    check_utf8(replacements_);
  } catch (const Error& error) {
    throw Error(ErrorCode::kInvalidFile, fmt::format("the character map is damaged: {}", error.what()), where_);
  }
}

uint32_t CharsMap::unit(size_t index) const {
  if (index >= trie_.size()) {
    throw Error(ErrorCode::kInvalidFile,
                fmt::format("the character map is damaged: unit {} of a trie of {} units", index, trie_.size()),
                where_);
  }
  return trie_[index];
}

std::optional<std::string_view> CharsMap::replacement(std::string_view text) const {
  size_t node = offset(unit(0));
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    node ^= byte;
    const uint32_t current = unit(node);
    if (label(current) != byte) return std::nullopt;
    node ^= offset(current);
    if (!has_leaf(current)) continue;
    const uint32_t start = value(unit(node));
    const bool inside = start < replacements_.size();
    const bool in_character = inside && (static_cast<unsigned char>(replacements_[start]) & 0xc0) == 0x80;
    if (!inside || in_character) {
      throw Error(
          ErrorCode::kInvalidFile,
          fmt::format("the character map is damaged: replacement at {} of {} bytes", start, replacements_.size()),
          where_);
    }
    return std::string_view(replacements_.data() + start);
  }
  return std::nullopt;
}

std::string CharsMap::normalize(std::string_view text) const {
  if (trie_.empty()) return std::string(text);
  std::string out;
  out.reserve(text.size());
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = grapheme_end(text, begin);
    const std::string_view cluster = text.substr(begin, end - begin);
    begin = end;
    if (cluster.size() <= kMaxWholeCluster) {
      if (const auto replaced = replacement(cluster)) {
        out += *replaced;
        continue;
      }
    }
    for (size_t position = 0; position < cluster.size();) {
      const size_t start = position;
      next_code_point(cluster, position);
      const std::string_view one = cluster.substr(start, position - start);
      out += replacement(one).value_or(one);
    }
  }
  return out;
}

}  // namespace chipmunk::text
