#include <algorithm>

#include "cuda/cuda_error.h"
#include "cuda/launch.h"
#include "cuda/overlap.cuh"
#include "cuda/sm90/attention.h"
#include "cuda/sm90/attention_pieces.cuh"
#include "cuda/sm90/attention_plan.h"
#include "cuda/sm90/column_sums.cuh"
#include "cuda/sm90/tensor_map.h"

namespace chipmunk::cuda::sm90 {
namespace {

// With column sums, a block's rows are a group. Together: for parts.
template <int kHeadDim, bool kSums>
struct ShapeFor;
template <>
struct ShapeFor<64, false> {
  using Type = AttentionShape<64, 3, 128, 4, true, 32>;
  using Together = AttentionShape<64, 3, 128, 4, false, 32>;
};
template <>
struct ShapeFor<128, false> {
  using Type = AttentionShape<128, 3, 128, 2, false, 32>;
  using Together = AttentionShape<128, 3, 112, 3, false, 32>;
};
template <>
struct ShapeFor<64, true> {
  using Type = AttentionShape<64, 3, 128, 4, false, 32>;
};
template <>
struct ShapeFor<128, true> {
  using Type = AttentionShape<128, 3, 96, 3, false, 32>;
};

struct Arguments : PieceArguments {
  CUtensorMap q, k, v;
  float* lse;  // [B, H, N] or null
  const int32_t* key_lengths;
  const float* column_lse;  // [B, H, N]
  float* column_sums;       // [B, H, G, M]
  int key_tokens, heads_per_kv_head;
  bool lets_next_begin;  // items: from this grid's start on
  float scale_log2;

  __device__ int keys(int batch) const {
    return key_lengths == nullptr ? key_tokens : min(key_tokens, max(key_lengths[batch], 0));
  }
};

/// One thread asks the copy engine for all keys and values.
template <class Shape, Pieces kPieces>
__device__ void produce(const Arguments& a, const AttentionPipeline<Shape>& pipeline) {
  typename AttentionPipeline<Shape>::Position at;
  for (int number = blockIdx.x; number < a.pieces; number += gridDim.x) {
    const auto piece = Piece<Shape, kPieces>::find(a, number);
    const int kv_head = piece.head / a.heads_per_kv_head;
    const int tiles = (a.keys(piece.batch) + Shape::kTileKeys - 1) / Shape::kTileKeys;
    for (int t = 0; t < tiles; ++t) {
      const auto bring = [&](const CUtensorMap* map, uint32_t destination, uint32_t full, uint32_t empty) {
        wait(empty, at.parity ^ 1);
        arrive_expecting(full, Shape::kTileBytes);
#pragma unroll
        for (int block = 0; block < Shape::kHeadDim / kRowElements; ++block) {
          copy_box(destination + block * AttentionPipeline<Shape>::TileMatrix::kBlockBytes, map, full,
                   block * kRowElements, t * Shape::kTileKeys, kv_head, piece.batch);
        }
      };
      bring(&a.k, pipeline.keys(at.slot).address, pipeline.keys_full(at.slot), pipeline.keys_empty(at.slot));
      bring(&a.v, pipeline.values(at.slot).address, pipeline.values_full(at.slot), pipeline.values_empty(at.slot));
      at.advance();
    }
  }
}

/// The lse of the step before as ColumnSumHook takes it.
__device__ float column_shift(const Arguments& a, const OutRows& rows, int r) {
  if (!rows.exists(r)) return -INFINITY;
  const float lse = a.column_lse[rows.lse_index(r)];
  // A row that saw no key does not count.
  return lse == -INFINITY ? -INFINITY : lse * -kLog2E;
}

template <class Shape, Pieces kPieces, bool kSums>
__device__ void consume(const Arguments& a, const AttentionPipeline<Shape>& pipeline, const ColumnSumRing<Shape>& ring,
                        int warpgroup) {
  using Piece = Piece<Shape, kPieces>;
  AttentionConsumer<Shape, false> consumer(pipeline, warpgroup, a.scale_log2);
  RingPosition<ColumnSumRing<Shape>::kSlots> sums_at;
  const auto bring = [&](int number) {
    if (number < a.pieces) Piece::find(a, number).bring_rows(pipeline, warpgroup, a.q);
  };
  bring(blockIdx.x);
  for (int number = blockIdx.x; number < a.pieces; number += gridDim.x) {
    const Piece piece = Piece::find(a, number);
    const int keys = a.keys(piece.batch);
    const auto next_queries = [&] { bring(number + static_cast<int>(gridDim.x)); };
    const OutRows rows = piece.rows(a, warpgroup);
    if constexpr (kPieces == Pieces::kParts) {
      consumer.attend_together(keys);
      // A block has one part.
      if (warpgroup > 0) return;
    } else if (keys == 0) {
      consumer.attend_nothing(next_queries);
    } else if constexpr (kSums) {
      consumer.attend(keys, next_queries,
                      ColumnSumHook<Shape>{ring,
                                           sums_at,
                                           static_cast<int>(threadIdx.x) / 32 - 4,
                                           static_cast<int>(threadIdx.x) % 32,
                                           {column_shift(a, rows, 0), column_shift(a, rows, 1)}});
    } else {
      consumer.attend(keys, next_queries);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float lse = consumer.lse(r);
      if (a.lse != nullptr && rows.is_writer(r)) a.lse[rows.lse_index(r)] = lse;
      const float divisor = consumer.divisor(r), scale = divisor == 0.0f ? 0.0f : 1.0f / divisor;
      rows.template write<Shape::kHeadDim>(consumer.out, r, scale);
    }
  }
}

template <class Shape>
__device__ void reduce(const Arguments& a, const ColumnSumRing<Shape>& ring) {
  RingPosition<ColumnSumRing<Shape>::kSlots> at;
  for (int number = blockIdx.x; number < a.pieces; number += gridDim.x) {
    const auto piece = Piece<Shape, Pieces::kItems>::find(a, number);
    reduce_column_sums(ring, at, static_cast<int>(threadIdx.x) - 32,
                       a.column_sums + static_cast<int64_t>(number) * a.key_tokens, a.keys(piece.batch), a.key_tokens);
  }
}

template <class Shape, Pieces kPieces, bool kSums>
__global__ void __launch_bounds__(Shape::kThreads, 1) dense_attention(const __grid_constant__ Arguments a) {
  extern __shared__ unsigned char shared[];
  const AttentionPipeline<Shape> pipeline(shared);
  const ColumnSumRing<Shape> ring{pipeline.base, shared + (pipeline.base - shared_address(shared))};
  if (threadIdx.x == 0) {
    pipeline.init(1);
    if constexpr (kSums) ring.init();
    prefetch_map(&a.q);
    prefetch_map(&a.k);
    prefetch_map(&a.v);
  }
  __syncthreads();
  if (kPieces == Pieces::kItems || !a.follows_items) {
    wait_for_previous_kernels();
    if (kPieces == Pieces::kItems && a.lets_next_begin) let_next_kernel_begin();
  }
  const int warpgroup = warpgroup_index();
  if (warpgroup == 0) {
    shrink_registers<Shape::kProducerRegisters>();
    if (threadIdx.x == 0) produce<Shape, kPieces>(a, pipeline);
    if constexpr (kSums) {
      if (threadIdx.x >= 32) reduce<Shape>(a, ring);
    }
  } else {
    grow_registers<Shape::kConsumerRegisters>();
    consume<Shape, kPieces, kSums>(a, pipeline, ring, warpgroup - 1);
  }
  // What comes after this grid may rely on the one before it, too.
  if (kPieces == Pieces::kParts) wait_for_previous_kernels();
}

template <class Shape, Pieces kPieces, bool kSums>
void launch_grid(cudaStream_t stream, const AttentionParams& params, Arguments a, int blocks) {
  constexpr size_t kSharedBytes = kSums ? ColumnSumRing<Shape>::kSharedBytes : Shape::kSharedBytes;
  a.q = make_head_map(params.q.data, params.q_strides, params.batch, params.query_tokens, params.heads, params.head_dim,
                      Shape::kWarpgroupRows);
  a.k = make_head_map(params.k.data, params.k_strides, params.batch, params.key_tokens, params.kv_heads,
                      params.head_dim, Shape::kTileKeys);
  a.v = make_head_map(params.v.data, params.v_strides, params.batch, params.key_tokens, params.kv_heads,
                      params.head_dim, Shape::kTileKeys);
  const auto kernel = dense_attention<Shape, kPieces, kSums>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kSharedBytes)),
        "attention: shared memory");
  launch_overlapping(kernel, dim3(static_cast<unsigned>(blocks)), dim3(Shape::kThreads), kSharedBytes, stream,
                     "attention", a);
}

template <int kHeadDim, bool kSums>
void launch(cudaStream_t stream, const DeviceProperties& device, const AttentionParams& params) {
  using Shape = typename ShapeFor<kHeadDim, kSums>::Type;
  static_assert(!kSums || Shape::kRows == kColumnGroup);
  Arguments a{};
  a.out = {static_cast<__nv_bfloat16*>(params.out.data), params.out_strides, static_cast<int>(params.heads),
           static_cast<int>(params.query_tokens)};
  a.lse = params.lse;
  a.key_lengths = params.key_lengths;
  a.column_lse = params.column_lse;
  a.column_sums = params.column_sums;
  a.key_tokens = static_cast<int>(params.key_tokens);
  a.heads_per_kv_head = static_cast<int>(params.heads / params.kv_heads);
  a.groups = static_cast<int>(ceil_div(params.query_tokens, Shape::kRows));
  a.scale_log2 = params.scale * kLog2E;
  const auto items = static_cast<int>(params.batch * params.heads * a.groups);
  // The sums of a group are a block's. Two rounds of thirds still take less time than one of items.
  const int parts = kSums ? 0 : items_in_parts(items, device.multiprocessors, Shape::kWarpgroups, 2);
  if (items > parts) {
    a.pieces = items - parts;
    a.lets_next_begin = parts > 0;
    launch_grid<Shape, Pieces::kItems, kSums>(stream, params, a, std::min(a.pieces, device.multiprocessors));
  }
  if constexpr (!kSums) {
    using Together = typename ShapeFor<kHeadDim, kSums>::Together;
    static_assert(Together::kRows == Shape::kRows);
    if (parts > 0) {
      a.first_item = items - parts;
      a.pieces = parts * Together::kWarpgroups;
      a.follows_items = items > parts;
      launch_grid<Together, Pieces::kParts, false>(stream, params, a, a.pieces);
    }
  }
}

}  // namespace

void launch_dense_attention(cudaStream_t stream, const DeviceProperties& device, const AttentionParams& params) {
  const bool sums = computes_column_sums(params);
  if (params.head_dim == 64) {
    sums ? launch<64, true>(stream, device, params) : launch<64, false>(stream, device, params);
  } else {
    sums ? launch<128, true>(stream, device, params) : launch<128, false>(stream, device, params);
  }
}

}  // namespace chipmunk::cuda::sm90
