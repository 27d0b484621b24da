#pragma once

#include "cuda/launch.h"
#include "cuda/sm90/column_mlp.h"

namespace chipmunk::cuda::sm90 {

/// One problem or two as one, which has the first one's weights.
struct ColumnMlpProblem {
  ColumnMlpParams params;
  int64_t blocks_per_sample, split_blocks, split_row;
  const ColumnMlpParams& last;

  ColumnMlpProblem(const ColumnMlpParams* problems, int count)
      : params(problems[0]),
        blocks_per_sample(ceil_div(problems[0].rows, kMlpBlock)),
        split_blocks(blocks_per_sample),
        split_row(problems[0].rows),
        last(problems[count - 1]) {
    if (count == 1) return;
    params.rows += last.rows;
    params.activations_go_on = last.activations_go_on;
    blocks_per_sample += ceil_div(last.rows, kMlpBlock);
  }
  int64_t blocks() const { return params.batch * blocks_per_sample; }
};

/// Along the depth of a step of renew.
inline int64_t channels_of_step(const ColumnMlpParams& p) { return p.weight1_scale != nullptr ? 128 : 64; }

}  // namespace chipmunk::cuda::sm90
