#include "text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "chipmunk/error.h"

namespace chipmunk {

FixedLengthTokens pad_or_truncate(const TokenIds& ids, int64_t length, const TokenizerInfo& info) {
  const int64_t special_count = info.bos_id ? 2 : 1;
  if (length < special_count) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("expected a length of at least {} tokens, got {}", special_count, length),
                "pad_or_truncate");
  }
  FixedLengthTokens out;
  out.full_length = static_cast<int64_t>(ids.size());
  out.length_before_padding = std::min(out.full_length, length);
  out.ids.assign(ids.begin(), ids.begin() + out.length_before_padding);
  if (out.truncated()) out.ids.back() = info.eos_id;
  out.ids.resize(static_cast<size_t>(length), info.pad_id);
  return out;
}

FixedLengthTokens encode_to_length(const Tokenizer& tokenizer, std::string_view utf8, int64_t length) {
  return pad_or_truncate(tokenizer.encode(utf8), length, tokenizer.info());
}

}  // namespace chipmunk
