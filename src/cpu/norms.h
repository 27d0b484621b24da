#pragma once

#include <cstdint>

namespace chipmunk::cpu {

/// What one row of a layer norm needs besides its values; null where absent.
struct LayerNormRow {
  const float *weight, *bias;  // [C]
  const float *scale, *shift;  // [C]
  int64_t channels;
  float epsilon;
};

/// What one head of one token needs; null where absent.
struct QkRow {
  const float* weight;     // [D]
  const float *cos, *sin;  // [D / 2]
  int64_t head_dim;
  float epsilon;
};

}  // namespace chipmunk::cpu
