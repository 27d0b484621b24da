#include "models/token_ids.h"

#include <string>

#include "chipmunk/error.h"

namespace chipmunk {

Tensor upload_token_ids(const Context& context, const std::vector<std::vector<int32_t>>& ids, int64_t vocab_size) {
  if (ids.empty() || ids.front().empty()) {
    throw Error(ErrorCode::kInvalidArgument, "expected at least one text of at least one token", "token ids");
  }
  const int64_t tokens = static_cast<int64_t>(ids.front().size());
  const Tensor host = make_host_tensor({static_cast<int64_t>(ids.size()) * tokens}, DType::kI32);
  int32_t* out = host.data_as<int32_t>();
  for (const std::vector<int32_t>& row : ids) {
    if (static_cast<int64_t>(row.size()) != tokens) {
      throw Error(ErrorCode::kInvalidArgument,
                  "expected rows of " + std::to_string(tokens) + " tokens, found " + std::to_string(row.size()),
                  "token ids");
    }
    for (int32_t id : row) {
      if (id < 0 || id >= vocab_size) {
        throw Error(ErrorCode::kInvalidArgument,
                    "token id " + std::to_string(id) + " is outside of the text encoder's vocabulary of " +
                        std::to_string(vocab_size) + " (do tokenizer and encoder belong together?)",
                    "token ids");
      }
      *out++ = id;
    }
  }
  return context.to_device(host);
}

}  // namespace chipmunk
