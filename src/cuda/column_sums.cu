#include "cuda/attention_tile.cuh"
#include "cuda/cuda_error.h"
#include "cuda/launch.h"
#include "cuda/portable_attention.h"

namespace chipmunk::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kBlockRows = kWarps * kWarpRows;

struct Arguments {
  const bf16 *q, *k;
  HeadStrides q_strides, k_strides;
  int64_t query_tokens, key_tokens;
  int head_dim, heads, heads_per_kv_head;
  float scale_log2;
  const float* relative_bias;
  const int32_t* key_lengths;
  bool causal;
  const float* lse;
  float* sums;
  int64_t group_size;
};

/// One block a tile of keys and a group of query rows, which go by kBlockRows at a time; so a sum has one owner and one
/// order. Grid [key tiles, groups, batch * heads].
template <int kDim, bool kAligned>
__global__ void __launch_bounds__(kThreads) column_sums(const __grid_constant__ Arguments a) {
  extern __shared__ __align__(16) unsigned char shared[];
  bf16* memory = reinterpret_cast<bf16*>(shared);
  const Tile<kDim> k{memory}, q{memory + kDim * kTileKeys};
  __shared__ float partial[kWarps][kTileKeys];
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize, lane = static_cast<int>(threadIdx.x) % kWarpSize;

  const int64_t batch = blockIdx.z / a.heads, head = blockIdx.z % a.heads, group = blockIdx.y;
  const int64_t first_key = static_cast<int64_t>(blockIdx.x) * kTileKeys;
  const int64_t first_row = group * a.group_size;
  const int64_t end_row = min(first_row + a.group_size, a.query_tokens);
  const HeadRows q_rows{a.q + batch * a.q_strides.batch + head * a.q_strides.head, a.q_strides.token, a.head_dim};
  const HeadRows k_rows{a.k + batch * a.k_strides.batch + head / a.heads_per_kv_head * a.k_strides.head,
                        a.k_strides.token, a.head_dim};
  const float* lse = a.lse + (batch * a.heads + head) * a.query_tokens;

  ScoreMask mask{nullptr, 0, a.key_tokens, a.key_tokens};
  if (a.key_lengths != nullptr) mask.limit = min(mask.limit, static_cast<int64_t>(a.key_lengths[batch]));
  if (a.relative_bias != nullptr) {
    mask.relative_bias = a.relative_bias + head * (a.query_tokens + a.key_tokens - 1);
    mask.bias_origin = a.query_tokens - 1;
  }
  if (a.causal) mask.causal_offset = a.key_tokens - a.query_tokens;

  load_rows<kDim, kTileKeys, kThreads, kAligned>(
      k, k_rows, [&](int row) -> int64_t { return first_key + row < a.key_tokens ? first_key + row : -1; });
  float sums[kScoreTiles][2] = {};
  for (int64_t block_row = first_row; block_row < end_row; block_row += kBlockRows) {
    // Every warp is done with the rows before.
    __syncthreads();
    load_rows<kDim, kBlockRows, kThreads, kAligned>(
        q, q_rows, [&](int row) -> int64_t { return block_row + row < end_row ? block_row + row : -1; });
    commit_copies();
    wait_copies<0>();
    __syncthreads();
    float scores[kScoreTiles][4];
    compute_scores(scores, q, warp * kWarpRows, k, lane);
    const int64_t rows[2] = {block_row + warp * kWarpRows + lane / 4, block_row + warp * kWarpRows + lane / 4 + 8};
    mask_scores(scores, mask, rows, first_key, a.scale_log2, lane);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float row_lse = rows[r] < end_row ? lse[rows[r]] : -INFINITY;
      if (row_lse == -INFINITY) continue;
#pragma unroll
      for (int n = 0; n < kScoreTiles; ++n) {
        sums[n][0] += exp2f(fmaf(row_lse, -kLog2E, scores[n][2 * r]));
        sums[n][1] += exp2f(fmaf(row_lse, -kLog2E, scores[n][2 * r + 1]));
      }
    }
  }
#pragma unroll
  for (int n = 0; n < kScoreTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      // Over the lanes that hold the same column.
#pragma unroll
      for (int offset = 4; offset < kWarpSize; offset *= 2) {
        sums[n][i] += __shfl_xor_sync(0xffffffffu, sums[n][i], offset);
      }
      if (lane < 4) partial[warp][n * 8 + lane * 2 + i] = sums[n][i];
    }
  }
  __syncthreads();
  const int key = static_cast<int>(threadIdx.x);
  if (key < kTileKeys && first_key + key < a.key_tokens) {
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += partial[w][key];
    const int64_t row = (batch * a.heads + head) * gridDim.y + group;
    a.sums[row * a.key_tokens + first_key + key] = sum;
  }
}

template <int kDim, bool kAligned>
void launch(cudaStream_t stream, const Arguments& a, dim3 grid) {
  constexpr size_t kBytes = sizeof(bf16) * kDim * (kTileKeys + kBlockRows);
  column_sums<kDim, kAligned><<<grid, kThreads, kBytes, stream>>>(a);
}

}  // namespace

void launch_column_sums(cudaStream_t stream, const AttentionParams& params) {
  Arguments a{};
  a.q = static_cast<const bf16*>(params.q.data);
  a.k = static_cast<const bf16*>(params.k.data);
  a.q_strides = params.q_strides;
  a.k_strides = params.k_strides;
  a.query_tokens = params.query_tokens;
  a.key_tokens = params.key_tokens;
  a.head_dim = static_cast<int>(params.head_dim);
  a.heads = static_cast<int>(params.heads);
  a.heads_per_kv_head = static_cast<int>(params.heads / params.kv_heads);
  a.scale_log2 = params.scale * kLog2E;
  a.relative_bias = params.relative_bias;
  a.key_lengths = params.key_lengths;
  a.causal = params.causal;
  a.lse = params.column_lse;
  a.sums = params.column_sums;
  a.group_size = params.group_size;
  const dim3 grid(static_cast<unsigned>(ceil_div(params.key_tokens, kTileKeys)),
                  static_cast<unsigned>(ceil_div(params.query_tokens, params.group_size)),
                  static_cast<unsigned>(params.batch * params.heads));
  constexpr size_t kBytes = kChunk * sizeof(bf16);
  const bool aligned = params.head_dim % kChunk == 0 &&
                       is_aligned(a.q, sizeof(bf16), kBytes, a.q_strides.batch, a.q_strides.token, a.q_strides.head) &&
                       is_aligned(a.k, sizeof(bf16), kBytes, a.k_strides.batch, a.k_strides.token, a.k_strides.head);
  if (params.head_dim <= 64) {
    aligned ? launch<64, true>(stream, a, grid) : launch<64, false>(stream, a, grid);
  } else {
    aligned ? launch<128, true>(stream, a, grid) : launch<128, false>(stream, a, grid);
  }
  check_launch("attention: column sums");
}

}  // namespace chipmunk::cuda
