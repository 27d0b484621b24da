#pragma once

#include <bitset>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace chipmunk::text {

/// A token that is matched literally in the text, before anything else looks at it.
struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool normalized = false;   ///< matched in the normalized text instead of the raw one
  bool strip_left = false;   ///< a match takes the white space before it along
  bool strip_right = false;  ///< likewise behind it
  bool single_word = false;  ///< matches only between characters that are not part of words
};

/// Finds a set of added tokens; at each place the longest that fits.
class AddedTokenMatcher {
 public:
  /// A stretch of the text: a match with its id, or what lies between two matches (id = kNoToken).
  struct Piece {
    std::string_view text;
    int32_t id;
  };
  static constexpr int32_t kNoToken = -1;

  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  /// The whole of `text` (valid UTF-8) in order; the views point into it. Empty stretches are left out.
  std::vector<Piece> split(std::string_view text) const;

 private:
  const AddedToken* match_at(std::string_view text, size_t position) const;

  std::vector<AddedToken> tokens_;  // longest first
  std::bitset<256> first_bytes_;
};

}  // namespace chipmunk::text
