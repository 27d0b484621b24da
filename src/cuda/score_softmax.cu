#include "cuda/cuda_error.h"
#include "cuda/float_types.cuh"
#include "cuda/launch.h"
#include "cuda/portable_attention.h"
#include "cuda/reduce.cuh"

namespace chipmunk::cuda {
namespace {

constexpr int kThreads = 256;

__device__ float score_of(const ScoreSoftmax& a, const float* scores, int64_t row, int64_t key) {
  float score = scores[key] * a.scale;
  if (a.relative_bias != nullptr) score += a.relative_bias[key - row + a.query_tokens - 1];
  return score;
}

/// One block a row.
__global__ void __launch_bounds__(kThreads) score_softmax(const __grid_constant__ ScoreSoftmax a) {
  __shared__ float scratch[2][kThreads / kWarpSize];
  const int64_t local_row = blockIdx.x;
  const int64_t row = a.first_row + local_row;
  const float* scores = a.scores + local_row * a.stride;
  bf16* probabilities = static_cast<bf16*>(a.probabilities) + local_row * a.stride;
  int64_t visible = a.keys;
  if (a.key_length != nullptr) visible = min(visible, static_cast<int64_t>(*a.key_length));
  if (a.causal) visible = min(visible, row + a.keys - a.query_tokens + 1);

  float largest = -INFINITY;
  for (int64_t key = threadIdx.x; key < visible; key += kThreads) {
    largest = fmaxf(largest, score_of(a, scores, row, key));
  }
  largest = block_max<kThreads>(largest, scratch[0]);
  const float base = largest == -INFINITY ? 0.0f : largest;
  float sum = 0.0f;
  for (int64_t key = threadIdx.x; key < visible; key += kThreads) sum += expf(score_of(a, scores, row, key) - base);
  sum = block_sum<kThreads>(sum, scratch[1]);
  const float scale = sum == 0.0f ? 0.0f : 1.0f / sum;
  for (int64_t key = threadIdx.x; key < a.keys; key += kThreads) {
    const float value = key < visible ? expf(score_of(a, scores, row, key) - base) * scale : 0.0f;
    probabilities[key] = from_float<bf16>(value);
  }
  if (a.lse != nullptr && threadIdx.x == 0) a.lse[local_row] = sum == 0.0f ? -INFINITY : base + logf(sum);
}

}  // namespace

void launch_score_softmax(cudaStream_t stream, const ScoreSoftmax& softmax) {
  score_softmax<<<static_cast<unsigned>(softmax.rows), kThreads, 0, stream>>>(softmax);
  check_launch("attention: softmax");
}

}  // namespace chipmunk::cuda
