#include "text/byte_level_bpe.h"

#include <fmt/format.h>

#include <queue>
#include <tuple>

#include "chipmunk/error.h"
#include "text/unicode.h"

namespace chipmunk::text {
namespace {

// GPT-2's alphabet: printable Latin-1 bytes stand for themselves, the others for code points from 256 on, in order.
std::array<std::string, 256> byte_alphabet() {
  std::array<std::string, 256> alphabet;
  char32_t next_substitute = 256;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
    append_utf8(alphabet[byte], printable ? byte : next_substitute++);
  }
  return alphabet;
}

uint64_t pair_key(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

}  // namespace

ByteLevelBpe::ByteLevelBpe(const BpeSpec& spec) {
  const std::array<std::string, 256> alphabet = byte_alphabet();
  const auto byte_id = [&](size_t byte, const std::string& token) {
    const auto found = spec.vocab.find(token);
    if (found == spec.vocab.end()) {
      throw Error(ErrorCode::kInvalidFile,
                  fmt::format("expected a token \"{}\" for the byte 0x{:02x}, found none", token, byte),
                  spec.vocab_file);
    }
    return found->second;
  };
  for (size_t byte = 0; byte < alphabet.size(); ++byte) {
    byte_ids_[byte] = byte_id(byte, alphabet[byte]);
    last_byte_ids_[byte] = byte_id(byte, alphabet[byte] + spec.end_of_word_suffix);
  }

  merges_.reserve(spec.merges.size());
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const std::string &left = spec.merges[rank].first, &right = spec.merges[rank].second;
    const auto token_id = [&](const std::string& token) {
      const auto found = spec.vocab.find(token);
      if (found == spec.vocab.end()) {
        throw Error(ErrorCode::kInvalidFile,
                    fmt::format("merge {} (\"{} {}\") does not fit the vocabulary: it has no token \"{}\"", rank + 1,
                                left, right, token),
                    spec.merges_file);
      }
      return found->second;
    };
    const int32_t merged = token_id(left + right);
    // Of a pair listed twice the later entry holds, as in the field's fast tokenizers.
    merges_[pair_key(token_id(left), token_id(right))] = {static_cast<int32_t>(rank), merged};
  }
}

const ByteLevelBpe::Merge* ByteLevelBpe::find_merge(int32_t left, int32_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void ByteLevelBpe::encode_word(std::string_view word, TokenIds& ids) const {
  // The symbols form a linked list over fixed slots, the possible merges a queue in which outdated entries are
  // recognised when they come up.
  struct Symbol {
    int32_t id;  // -1: taken over by the symbol on its left
    int64_t previous;
    int64_t next;
  };
  const auto count = static_cast<int64_t>(word.size());
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  for (int64_t i = 0; i < count; ++i) {
    const auto byte = static_cast<unsigned char>(word[static_cast<size_t>(i)]);
    symbols.push_back({i + 1 < count ? byte_ids_[byte] : last_byte_ids_[byte], i - 1, i + 1});
  }

  using Candidate = std::tuple<int32_t, int64_t, int32_t, int32_t>;  // rank, left slot, left id, right id
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto offer = [&](int64_t left) {
    const Symbol& symbol = symbols[static_cast<size_t>(left)];
    if (symbol.next >= count) return;
    const int32_t right_id = symbols[static_cast<size_t>(symbol.next)].id;
    if (const Merge* merge = find_merge(symbol.id, right_id)) queue.emplace(merge->rank, left, symbol.id, right_id);
  };
  for (int64_t i = 0; i + 1 < count; ++i) offer(i);

  while (!queue.empty()) {
    const auto [rank, slot, left_id, right_id] = queue.top();
    queue.pop();
    Symbol& left = symbols[static_cast<size_t>(slot)];
    if (left.id != left_id || left.next >= count) continue;
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    if (right.id != right_id) continue;
    left.id = find_merge(left_id, right_id)->id;
    right.id = -1;
    left.next = right.next;
    if (left.next < count) symbols[static_cast<size_t>(left.next)].previous = slot;
    if (left.previous >= 0) offer(left.previous);
    offer(slot);
  }
  for (int64_t i = 0; i < count; i = symbols[static_cast<size_t>(i)].next) {
    ids.push_back(symbols[static_cast<size_t>(i)].id);
  }
}

}  // namespace chipmunk::text
