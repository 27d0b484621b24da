#include "text/sentencepiece_file.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstdint>

#include "chipmunk/error.h"

namespace chipmunk::text {
namespace {

// Field numbers of sentencepiece_model.proto.
enum ModelField : uint32_t { kPieces = 1, kTrainerSpec = 2, kNormalizerSpec = 3 };
enum PieceField : uint32_t { kPieceText = 1, kPieceScore = 2, kPieceType = 3 };
enum TrainerField : uint32_t {
  kModelType = 3,
  kVocabSize = 4,
  kByteFallback = 35,
  kUnkId = 40,
  kBosId = 41,
  kEosId = 42,
  kPadId = 43,
  kUnkPiece = 45,
};
enum NormalizerField : uint32_t {
  kCharsMap = 2,
  kAddDummyPrefix = 3,
  kRemoveExtraWhiteSpaces = 4,
  kEscapeWhiteSpaces = 5,
};
enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

constexpr uint64_t kUnigramModelType = 1;
constexpr uint64_t kMinusOne = ~uint64_t{0};

struct Field {
  uint32_t number = 0;
  uint64_t integer = 0;    // of kVarint, kFixed32 and kFixed64
  std::string_view bytes;  // of kBytes
};

// Walks over the fields of one message.
class FieldReader {
 public:
  FieldReader(std::string_view bytes, const std::string& file) : bytes_(bytes), file_(file) {}

  bool next(Field& field) {
    if (position_ == bytes_.size()) return false;
    const uint64_t key = varint();
    field = {};
    field.number = static_cast<uint32_t>(key >> 3);
    switch (key & 7) {
      case kVarint: field.integer = varint(); break;
      case kFixed32: field.integer = fixed(4); break;
      case kFixed64: field.integer = fixed(8); break;
      case kBytes: field.bytes = take(varint()); break;
      default: fail(fmt::format("a field of wire type {}", key & 7));
    }
    return true;
  }

 private:
  [[noreturn]] void fail(const std::string& found) const {
    throw Error(ErrorCode::kInvalidFile, "expected a sentencepiece model, found " + found, file_);
  }

  std::string_view take(uint64_t count) {
    if (count > bytes_.size() - position_) fail("a message that ends early");
    const std::string_view taken = bytes_.substr(position_, count);
    position_ += count;
    return taken;
  }

  uint64_t fixed(size_t count) {
    const std::string_view taken = take(count);
    uint64_t result = 0;
    for (size_t i = count; i-- > 0;) result = (result << 8) | static_cast<unsigned char>(taken[i]);
    return result;
  }

  uint64_t varint() {
    uint64_t result = 0;
    for (uint32_t shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1).front());
      result |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return result;
    }
    fail("an integer of more than 64 bits");
  }

  std::string_view bytes_;
  const std::string& file_;
  size_t position_ = 0;
};

UnigramSpec::Piece parse_piece(std::string_view bytes, size_t id, const std::string& file) {
  UnigramSpec::Piece piece;
  FieldReader reader(bytes, file);
  for (Field field; reader.next(field);) {
    if (field.number == kPieceText) piece.text = field.bytes;
    if (field.number == kPieceScore) piece.score = std::bit_cast<float>(static_cast<uint32_t>(field.integer));
    if (field.number == kPieceType) {
      if (field.integer < 1 || field.integer > 6) {
        throw Error(ErrorCode::kInvalidFile,
                    fmt::format("piece {}: expected a type between 1 and 6, found {}", id, field.integer), file);
      }
      piece.type = static_cast<UnigramSpec::PieceType>(field.integer);
    }
  }
  if (!std::isfinite(piece.score)) {
    throw Error(ErrorCode::kInvalidFile, fmt::format("piece {} has a score that is not finite", id), file);
  }
  return piece;
}

void append_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>((value & 0x7f) | 0x80);
  out += static_cast<char>(value);
}

void append_integer(std::string& out, uint32_t number, uint64_t value) {
  append_varint(out, (number << 3) | kVarint);
  append_varint(out, value);
}

void append_bytes(std::string& out, uint32_t number, std::string_view bytes) {
  append_varint(out, (number << 3) | kBytes);
  append_varint(out, bytes.size());
  out += bytes;
}

void append_float(std::string& out, uint32_t number, float value) {
  append_varint(out, (number << 3) | kFixed32);
  const auto bits = std::bit_cast<uint32_t>(value);
  for (uint32_t shift = 0; shift < 32; shift += 8) out += static_cast<char>((bits >> shift) & 0xff);
}

}  // namespace

UnigramSpec parse_sentencepiece_model(std::string_view bytes, const std::string& file) {
  UnigramSpec spec;
  spec.file = file;
  FieldReader model(bytes, file);
  for (Field field; model.next(field);) {
    if (field.number == kPieces) {
      spec.pieces.push_back(parse_piece(field.bytes, spec.pieces.size(), file));
    } else if (field.number == kTrainerSpec) {
      FieldReader trainer(field.bytes, file);
      for (Field entry; trainer.next(entry);) {
        if (entry.number == kByteFallback) spec.byte_fallback = entry.integer != 0;
        if (entry.number == kModelType && entry.integer != kUnigramModelType) {
          throw Error(ErrorCode::kUnsupported,
                      fmt::format("expected a unigram model (type 1), found type {}", entry.integer), file);
        }
      }
    } else if (field.number == kNormalizerSpec) {
      FieldReader normalizer(field.bytes, file);
      for (Field entry; normalizer.next(entry);) {
        if (entry.number == kCharsMap) spec.charsmap = entry.bytes;
      }
    }
  }
  size_t unknown_count = 0;
  for (size_t id = 0; id < spec.pieces.size(); ++id) {
    if (spec.pieces[id].type != UnigramSpec::PieceType::kUnknown) continue;
    spec.unk_id = static_cast<int32_t>(id);
    ++unknown_count;
  }
  if (unknown_count != 1) {
    throw Error(
        ErrorCode::kInvalidFile,
        fmt::format("expected one piece for unknown text, found {} among {} pieces", unknown_count, spec.pieces.size()),
        file);
  }
  return spec;
}

std::string write_sentencepiece_model(const UnigramSpec& spec) {
  using PieceType = UnigramSpec::PieceType;
  std::string model;
  for (const UnigramSpec::Piece& piece : spec.pieces) {
    PieceType type = piece.type;
    // Where bytes are no fallback they are pieces like others, and the library refuses the byte type.
    if (type == PieceType::kByte && !spec.byte_fallback) type = PieceType::kNormal;
    // Control pieces too can come out of text in the field's fast tokenizers, where normalization spells one.
    if (type == PieceType::kControl) type = PieceType::kNormal;
    std::string message;
    append_bytes(message, kPieceText, piece.text);
    append_float(message, kPieceScore, piece.score);
    append_integer(message, kPieceType, static_cast<uint64_t>(type));
    append_bytes(model, kPieces, message);
  }
  std::string trainer;
  append_integer(trainer, kModelType, kUnigramModelType);
  append_integer(trainer, kVocabSize, spec.pieces.size());
  append_integer(trainer, kByteFallback, spec.byte_fallback ? 1 : 0);
  append_integer(trainer, kUnkId, static_cast<uint64_t>(spec.unk_id));
  for (const uint32_t absent : {kBosId, kEosId, kPadId}) append_integer(trainer, absent, kMinusOne);
  append_bytes(trainer, kUnkPiece, spec.pieces.at(static_cast<size_t>(spec.unk_id)).text);
  append_bytes(model, kTrainerSpec, trainer);
  std::string normalizer;
  for (const uint32_t step : {kAddDummyPrefix, kRemoveExtraWhiteSpaces, kEscapeWhiteSpaces}) {
    append_integer(normalizer, step, 0);
  }
  append_bytes(model, kNormalizerSpec, normalizer);
  return model;
}

}  // namespace chipmunk::text
