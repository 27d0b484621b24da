#include "text/unigram_model.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include "chipmunk/error.h"
#include "text/sentencepiece_file.h"

namespace chipmunk::text {

struct UnigramModel::Processor {
  sentencepiece::SentencePieceProcessor library;
};

UnigramModel::UnigramModel(const UnigramSpec& spec) : processor_(std::make_unique<Processor>()) {
  const auto status = processor_->library.LoadFromSerializedProto(write_sentencepiece_model(spec));
  if (!status.ok()) {
    throw Error(ErrorCode::kInvalidFile, fmt::format("sentencepiece refuses the vocabulary: {}", status.message()),
                spec.file);
  }
}

UnigramModel::~UnigramModel() = default;

void UnigramModel::encode_word(std::string_view word, TokenIds& ids) const {
  std::vector<int> found;
  const auto status = processor_->library.Encode(word, &found);
  if (!status.ok()) throw Error(ErrorCode::kInternal, status.message(), "sentencepiece");
  ids.insert(ids.end(), found.begin(), found.end());
}

}  // namespace chipmunk::text
