#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace chipmunk::text {

/// Sentencepiece's "precompiled character map": replacements of short byte sequences, held in a double-array trie.
class CharsMap {
 public:
  /// blob: [u32 bytes of the trie][trie: u32 units][replacements, each ended by a NUL], little-endian; empty =
  /// identity. where: the file, for messages. Throws kInvalidFile if the parts do not fit together.
  CharsMap(std::string_view blob, std::string where);

  /// The text (valid UTF-8) with every grapheme cluster of less than six bytes replaced as a whole, where it starts
  /// with an entry, and otherwise each of its code points. That is the order of the field's fast tokenizers;
  /// sentencepiece itself takes the longest entry at each place and ignores clusters.
  std::string normalize(std::string_view text) const;

 private:
  // The replacement of the shortest entry that `text` starts with.
  std::optional<std::string_view> replacement(std::string_view text) const;
  uint32_t unit(size_t index) const;

  std::vector<uint32_t> trie_;
  std::string replacements_;
  std::string where_;
};

}  // namespace chipmunk::text
