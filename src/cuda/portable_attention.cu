#include <algorithm>

#include "cuda/attention_tile.cuh"
#include "cuda/column_epilogue.cuh"
#include "cuda/cuda_error.h"
#include "cuda/launch.h"
#include "cuda/portable_attention.h"

namespace chipmunk::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kBlockRows = kWarps * kWarpRows;

/// Dense and column attention in one: dense is one group whose keys are all of them.
struct Arguments {
  const bf16 *q, *k, *v;
  bf16* out;
  HeadStrides q_strides, k_strides, v_strides, out_strides;
  int64_t query_tokens, key_tokens;
  int head_dim, heads, heads_per_kv_head;
  float scale_log2;
  float* lse;
  // dense
  const float* relative_bias;
  const int32_t* key_lengths;
  bool causal;
  // columns
  const int32_t *indices, *counts;
  int64_t capacity, group_size, blocks_per_group;
  ColumnEpilogueOperands epilogue;
};

/// What a block works on.
struct Work {
  int64_t batch, head, group;
  int64_t first_row, rows;  // query rows of this block
  int64_t keys;             // how many keys its rows read at most
  const int32_t* ids;       // their list, or null: 0, 1, ...
};

template <bool kColumns>
__device__ Work find_work(const Arguments& a) {
  Work work;
  work.batch = blockIdx.z;
  work.head = blockIdx.y;
  work.group = blockIdx.x / a.blocks_per_group;
  const int64_t group_start = work.group * a.group_size;
  work.first_row = group_start + blockIdx.x % a.blocks_per_group * kBlockRows;
  const int64_t group_end = min(group_start + a.group_size, a.query_tokens);
  work.rows = min(static_cast<int64_t>(kBlockRows), group_end - work.first_row);
  work.ids = nullptr;
  if constexpr (kColumns) {
    const int64_t groups = gridDim.x / a.blocks_per_group;
    const int64_t list = (work.batch * a.heads + work.head) * groups + work.group;
    work.keys = a.counts[list];
    if (work.keys != a.key_tokens) work.ids = a.indices + list * a.capacity;
  } else {
    work.keys = a.key_tokens;
    if (a.key_lengths != nullptr) {
      work.keys = max(int64_t{0}, min(work.keys, static_cast<int64_t>(a.key_lengths[work.batch])));
    }
    if (a.causal) {
      const int64_t last_row = work.first_row + work.rows - 1;
      work.keys = max(int64_t{0}, min(work.keys, last_row + a.key_tokens - a.query_tokens + 1));
    }
  }
  return work;
}

/// Running softmax of a thread's two rows, in exponents of 2.
struct Softmax {
  float largest[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0.0f, 0.0f};  // of this thread's columns only, until finish()

  /// Replaces scores by probabilities relative to the largest so far; factors: what the output so far is to be
  /// multiplied with.
  __device__ void update(float (&scores)[kScoreTiles][4], float (&factors)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float tile_largest = largest[r];
#pragma unroll
      for (int n = 0; n < kScoreTiles; ++n) {
        tile_largest = fmaxf(tile_largest, fmaxf(scores[n][2 * r], scores[n][2 * r + 1]));
      }
      tile_largest = fmaxf(tile_largest, __shfl_xor_sync(0xffffffffu, tile_largest, 1));
      tile_largest = fmaxf(tile_largest, __shfl_xor_sync(0xffffffffu, tile_largest, 2));
      // A row that has seen no key yet has nothing to subtract.
      const float base = tile_largest == -INFINITY ? 0.0f : tile_largest;
      factors[r] = exp2f(largest[r] - base);
      largest[r] = tile_largest;
      sum[r] *= factors[r];
#pragma unroll
      for (int n = 0; n < kScoreTiles; ++n) {
#pragma unroll
        for (int i = 2 * r; i < 2 * r + 2; ++i) {
          scores[n][i] = exp2f(scores[n][i] - base);
          sum[r] += scores[n][i];
        }
      }
    }
  }

  /// Adds up the threads that share a row.
  __device__ void finish() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 1);
      sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 2);
    }
  }

  __device__ float lse(int r) const { return sum[r] == 0.0f ? -INFINITY : (largest[r] + log2f(sum[r])) * kLn2; }
};

/// out += probabilities v, over the tile's keys.
template <int kDim>
__device__ void add_values(float (&out)[kDim / 8][4], const float (&probabilities)[kScoreTiles][4], const Tile<kDim>& v,
                           int lane) {
#pragma unroll
  for (int keys = 0; keys < kTileKeys / 16; ++keys) {
    const float(&left)[4] = probabilities[2 * keys];
    const float(&right)[4] = probabilities[2 * keys + 1];
    const uint32_t a[4] = {pack_bf16(left[0], left[1]), pack_bf16(left[2], left[3]), pack_bf16(right[0], right[1]),
                           pack_bf16(right[2], right[3])};
#pragma unroll
    for (int d = 0; d < kDim / 8; d += 2) {
      uint32_t b[4];
      v.load_block_transposed(b, keys * 16, d, lane);
      multiply_add(out[d], a, b[0], b[1]);
      multiply_add(out[d + 1], a, b[2], b[3]);
    }
  }
}

/// A product with a weight of 0 is 0 whatever the value: an operand that does not count may hold anything.
__device__ float weigh(float weight, float value) { return weight == 0.0f ? 0.0f : weight * value; }

template <int kDim, bool kColumns, bool kAligned>
__device__ void write_rows(const Arguments& a, const Work& work, const float (&out)[kDim / 8][4],
                           const Softmax& softmax, int warp, int lane) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int64_t row = warp * kWarpRows + lane / 4 + 8 * r;
    if (row >= work.rows) continue;
    const int64_t token = work.first_row + row;
    const int64_t lse_index = (work.batch * a.heads + work.head) * a.query_tokens + token;
    const float lse = softmax.lse(r);
    const bool writer = lane % 4 == 0;
    if (a.lse != nullptr && writer) a.lse[lse_index] = lse;
    RowWeights weights{0.0f, 1.0f};
    if constexpr (kColumns) {
      KnownLse known = load_known_lse(a.epilogue, lse_index);
      weights = row_weights(a.epilogue.kind, work.ids == nullptr, known, lse);
      if (a.epilogue.kind == ColumnEpilogue::kSplit && writer) a.epilogue.lse_rest[lse_index] = known.rest;
    }
    const float sparse = softmax.sum[r] == 0.0f || weights.sparse == 0.0f ? 0.0f : weights.sparse / softmax.sum[r];
    bf16* to = a.out + work.batch * a.out_strides.batch + token * a.out_strides.token + work.head * a.out_strides.head;
    const bf16* residual = nullptr;
    if (kColumns && weights.residual != 0.0f) {
      const HeadStrides& strides = a.epilogue.residual_strides;
      residual = a.epilogue.residual + work.batch * strides.batch + token * strides.token + work.head * strides.head;
    }
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      const int column = d * 8 + lane % 4 * 2;
      float values[2] = {weigh(sparse, out[d][2 * r]), weigh(sparse, out[d][2 * r + 1])};
      if constexpr (kAligned) {
        if (column >= a.head_dim) continue;
        if (residual != nullptr) {
          const Vec<bf16, 2> known = load_vec<bf16, 2>(residual + column);
          values[0] += weights.residual * to_float(known.values[0]);
          values[1] += weights.residual * to_float(known.values[1]);
        }
        *reinterpret_cast<uint32_t*>(to + column) = pack_bf16(values[0], values[1]);
      } else {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          if (column + i >= a.head_dim) continue;
          if (residual != nullptr) values[i] += weights.residual * to_float(residual[column + i]);
          to[column + i] = from_float<bf16>(values[i]);
        }
      }
    }
  }
}

template <int kDim>
constexpr size_t shared_bytes() {
  // q, and two stages of k and v.
  return sizeof(bf16) * kDim * (kBlockRows + 4 * kTileKeys);
}

/// One block a head's kBlockRows query rows, one warp kWarpRows of them; keys go by in tiles, the next tile on its way
/// while one is used. Grid [row blocks, heads, batch].
template <int kDim, bool kColumns, bool kAligned>
__global__ void __launch_bounds__(kThreads) portable_attention(const __grid_constant__ Arguments a) {
  extern __shared__ __align__(16) unsigned char shared[];
  bf16* memory = reinterpret_cast<bf16*>(shared);
  const Tile<kDim> q{memory};
  const auto k_tile = [&](int64_t t) { return Tile<kDim>{memory + kDim * (kBlockRows + t % 2 * kTileKeys)}; };
  const auto v_tile = [&](int64_t t) { return Tile<kDim>{memory + kDim * (kBlockRows + (2 + t % 2) * kTileKeys)}; };
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize, lane = static_cast<int>(threadIdx.x) % kWarpSize;

  const Work work = find_work<kColumns>(a);
  if (work.rows <= 0) return;
  const int64_t kv_head = work.head / a.heads_per_kv_head;
  const HeadRows q_rows{a.q + work.batch * a.q_strides.batch + work.head * a.q_strides.head, a.q_strides.token,
                        a.head_dim};
  const HeadRows k_rows{a.k + work.batch * a.k_strides.batch + kv_head * a.k_strides.head, a.k_strides.token,
                        a.head_dim};
  const HeadRows v_rows{a.v + work.batch * a.v_strides.batch + kv_head * a.v_strides.head, a.v_strides.token,
                        a.head_dim};
  const int64_t tiles = (work.keys + kTileKeys - 1) / kTileKeys;
  const auto load_keys = [&](int64_t t) {
    const auto key_of = [&](int row) -> int64_t {
      const int64_t key = t * kTileKeys + row;
      if (key >= work.keys) return -1;
      return work.ids != nullptr ? work.ids[key] : key;
    };
    load_rows<kDim, kTileKeys, kThreads, kAligned>(k_tile(t), k_rows, key_of);
    load_rows<kDim, kTileKeys, kThreads, kAligned>(v_tile(t), v_rows, key_of);
    commit_copies();
  };

  load_rows<kDim, kBlockRows, kThreads, kAligned>(
      q, q_rows, [&](int row) -> int64_t { return row < work.rows ? work.first_row + row : -1; });
  if (tiles > 0) load_keys(0);

  const int64_t rows[2] = {work.first_row + warp * kWarpRows + lane / 4,
                           work.first_row + warp * kWarpRows + lane / 4 + 8};
  ScoreMask mask{nullptr, 0, work.keys, a.key_tokens};
  if constexpr (!kColumns) {
    if (a.relative_bias != nullptr) {
      mask.relative_bias = a.relative_bias + work.head * (a.query_tokens + a.key_tokens - 1);
      mask.bias_origin = a.query_tokens - 1;
    }
    if (a.causal) mask.causal_offset = a.key_tokens - a.query_tokens;
  }

  float out[kDim / 8][4] = {};
  Softmax softmax;
  for (int64_t t = 0; t < tiles; ++t) {
    wait_copies<0>();
    __syncthreads();
    if (t + 1 < tiles) load_keys(t + 1);
    float scores[kScoreTiles][4];
    compute_scores(scores, q, warp * kWarpRows, k_tile(t), lane);
    mask_scores(scores, mask, rows, t * kTileKeys, a.scale_log2, lane);
    float factors[2];
    softmax.update(scores, factors);
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
#pragma unroll
      for (int i = 0; i < 4; ++i) out[d][i] *= factors[i / 2];
    }
    add_values(out, scores, v_tile(t), lane);
  }
  softmax.finish();
  write_rows<kDim, kColumns, kAligned>(a, work, out, softmax, warp, lane);
}

bool rows_are_aligned(const void* data, const HeadStrides& strides) {
  return is_aligned(data, sizeof(bf16), kChunk * sizeof(bf16), strides.batch, strides.token, strides.head);
}

template <int kDim, bool kColumns, bool kAligned>
void launch(cudaStream_t stream, const Arguments& a, dim3 grid) {
  const auto kernel = portable_attention<kDim, kColumns, kAligned>;
  constexpr size_t kBytes = shared_bytes<kDim>();
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kBytes)),
        "attention: shared memory");
  kernel<<<grid, kThreads, kBytes, stream>>>(a);
}

template <bool kColumns>
void launch(cudaStream_t stream, const Arguments& a, int64_t groups, int64_t batch) {
  const dim3 grid(static_cast<unsigned>(groups * a.blocks_per_group), static_cast<unsigned>(a.heads),
                  static_cast<unsigned>(batch));
  const bool aligned =
      a.head_dim % kChunk == 0 && rows_are_aligned(a.q, a.q_strides) && rows_are_aligned(a.k, a.k_strides) &&
      rows_are_aligned(a.v, a.v_strides) && rows_are_aligned(a.out, a.out_strides) &&
      (a.epilogue.residual == nullptr || rows_are_aligned(a.epilogue.residual, a.epilogue.residual_strides));
  if (a.head_dim <= 64) {
    aligned ? launch<64, kColumns, true>(stream, a, grid) : launch<64, kColumns, false>(stream, a, grid);
  } else {
    aligned ? launch<128, kColumns, true>(stream, a, grid) : launch<128, kColumns, false>(stream, a, grid);
  }
}

template <class Params>
Arguments common_arguments(const Params& params) {
  Arguments a{};
  a.q = static_cast<const bf16*>(params.q.data);
  a.k = static_cast<const bf16*>(params.k.data);
  a.v = static_cast<const bf16*>(params.v.data);
  a.out = static_cast<bf16*>(params.out.data);
  a.q_strides = params.q_strides;
  a.k_strides = params.k_strides;
  a.v_strides = params.v_strides;
  a.out_strides = params.out_strides;
  a.query_tokens = params.query_tokens;
  a.key_tokens = params.key_tokens;
  a.head_dim = static_cast<int>(params.head_dim);
  a.heads = static_cast<int>(params.heads);
  a.heads_per_kv_head = 1;
  a.scale_log2 = params.scale * kLog2E;
  a.lse = params.lse;
  return a;
}

}  // namespace

void launch_portable_attention(cudaStream_t stream, const AttentionParams& params) {
  Arguments a = common_arguments(params);
  a.heads_per_kv_head = static_cast<int>(params.heads / params.kv_heads);
  a.relative_bias = params.relative_bias;
  a.key_lengths = params.key_lengths;
  a.causal = params.causal;
  a.group_size = params.query_tokens;
  a.blocks_per_group = ceil_div(params.query_tokens, kBlockRows);
  launch<false>(stream, a, 1, params.batch);
  check_launch("attention");
}

void launch_portable_column_attention(cudaStream_t stream, const ColumnAttentionParams& params) {
  Arguments a = common_arguments(params);
  a.indices = params.indices;
  a.counts = params.counts;
  a.capacity = params.capacity;
  a.group_size = params.group_size;
  // A group may be larger than all queries together.
  a.blocks_per_group = ceil_div(std::min(params.group_size, params.query_tokens), kBlockRows);
  a.epilogue = column_epilogue_operands(params);
  launch<true>(stream, a, ceil_div(params.query_tokens, params.group_size), params.batch);
  check_launch("column_attention");
}

}  // namespace chipmunk::cuda
