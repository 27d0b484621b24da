#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/tokenizer.h"

namespace chipmunk::text {

/// A byte-pair encoding as tokenizer files state it.
struct BpeSpec {
  std::unordered_map<std::string, int32_t> vocab;
  std::vector<std::pair<std::string, std::string>> merges;  ///< first = merged first
  std::string end_of_word_suffix;                           ///< carried by the last symbol of each word; may be empty
  std::string vocab_file;                                   ///< for messages
  std::string merges_file;
};

/// Byte-pair encoding of words over the 256 byte values, each written as one printable character (as GPT-2 does).
class ByteLevelBpe {
 public:
  /// Throws kInvalidFile if the vocabulary lacks a byte, or a merge names or makes a token that it lacks.
  explicit ByteLevelBpe(const BpeSpec& spec);

  /// Appends the ids of one non-empty word; time n log n in its length.
  void encode_word(std::string_view word, TokenIds& ids) const;

 private:
  struct Merge {
    int32_t rank;
    int32_t id;
  };
  const Merge* find_merge(int32_t left, int32_t right) const;

  std::array<int32_t, 256> byte_ids_{};
  std::array<int32_t, 256> last_byte_ids_{};  // with the end-of-word suffix
  std::unordered_map<uint64_t, Merge> merges_;
};

}  // namespace chipmunk::text
