#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace chipmunk::text {

/// A unigram vocabulary as spiece.model and tokenizer.json state it.
struct UnigramSpec {
  /// Numbered as in sentencepiece's model format.
  enum class PieceType : int32_t {
    kNormal = 1,
    kUnknown = 2,
    kControl = 3,
    kUserDefined = 4,
    kUnused = 5,
    kByte = 6,
  };
  struct Piece {
    std::string text;
    float score = 0;  ///< logarithm of its probability
    PieceType type = PieceType::kNormal;
  };
  std::vector<Piece> pieces;  ///< a piece's place is its id
  int32_t unk_id = 0;
  bool byte_fallback = false;  ///< unknown characters become <0xNN> pieces
  std::string charsmap;        ///< see CharsMap
  std::string file;            ///< for messages
};

/// Splits words into their most probable pieces (sentencepiece's search).
class UnigramModel {
 public:
  /// Throws kInvalidFile if the library refuses the vocabulary.
  explicit UnigramModel(const UnigramSpec& spec);
  ~UnigramModel();

  /// Appends the ids of one word, which must already be normalized: nothing is added to it or changed.
  void encode_word(std::string_view word, TokenIds& ids) const;

 private:
  struct Processor;
  std::unique_ptr<Processor> processor_;
};

}  // namespace chipmunk::text
