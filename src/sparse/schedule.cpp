#include "sparse/schedule.h"

#include <cstddef>
#include <string>

#include "chipmunk/error.h"

namespace chipmunk {

DenoisingSchedule DenoisingSchedule::dense(const std::vector<float>& sigmas) {
  if (sigmas.size() < 2) {
    throw Error(ErrorCode::kInvalidArgument,
                "expected at least two sigmas (one step), found " + std::to_string(sigmas.size()), "schedule");
  }
  DenoisingSchedule schedule;
  for (size_t i = 0; i + 1 < sigmas.size(); ++i) {
    schedule.steps_.push_back({static_cast<int>(i), sigmas[i], sigmas[i + 1]});
  }
  return schedule;
}

const char* to_string(AttentionStep step) {
  switch (step) {
    case AttentionStep::kDense: return "dense";
    case AttentionStep::kRefresh: return "refresh";
    case AttentionStep::kRecache: return "recache";
    case AttentionStep::kSparse: return "sparse";
    case AttentionStep::kSkip: return "skip";
  }
  return "?";
}

const char* to_string(MlpStep step) {
  switch (step) {
    case MlpStep::kFull: return "full";
    case MlpStep::kSparseSelect: return "select";
    case MlpStep::kSparseReuse: return "reuse";
    case MlpStep::kSkip: return "skip";
  }
  return "?";
}

}  // namespace chipmunk
