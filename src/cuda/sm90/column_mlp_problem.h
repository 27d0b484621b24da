#pragma once

#include "cuda/launch.h"
#include "cuda/sm90/column_mlp.h"

namespace chipmunk::cuda::sm90 {

/// Channels that a step of the renew kernel goes along, of bf16 and of f8_e4m3; output channels of add's tiles.
constexpr int64_t kMlpStepChannels = 64, kMlpF8StepChannels = 128, kMlpTileChannels = 256;

inline int64_t channels_of_step(const ColumnMlpParams& p) {
  return p.weight1_scale != nullptr ? kMlpF8StepChannels : kMlpStepChannels;
}

/// One problem, or two as one.
struct ColumnMlpProblem {
  ColumnMlpParams params;  ///< the first problem's, with the rows of both
  int64_t blocks_per_sample;
  int64_t split_blocks, split_row;  ///< token blocks and rows of the first problem
  const ColumnMlpParams& last;      ///< whose weights the others have

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

}  // namespace chipmunk::cuda::sm90
