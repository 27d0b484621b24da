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

// With column sums, an item's rows are a group. Together: for parts.
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
  using Together = Type;
};
template <>
struct ShapeFor<128, true> {
  using Type = AttentionShape<128, 3, 96, 3, false, 32>;
  using Together = Type;
};

struct Arguments : PieceArguments {
  CUtensorMap q, k, v;
  float* lse;  // [B, H, N] or null
  const int32_t* key_lengths;
  const float* column_lse;  // [B, H, N]
  float* column_sums;       // of items [items, M], of parts [parts, M]
  int key_tokens, heads_per_kv_head;
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
    const auto hook = [&] {
      if constexpr (kSums) {
        return ColumnSumHook<Shape>{ring,
                                    sums_at,
                                    static_cast<int>(threadIdx.x) / 32 - 4,
                                    static_cast<int>(threadIdx.x) % 32,
                                    {column_shift(a, rows, 0), column_shift(a, rows, 1)}};
      } else {
        return NoTileHook{};
      }
    }();
    if constexpr (kPieces == Pieces::kParts) {
      consumer.attend_together(keys, hook);
      // A block has one part.
      if (warpgroup > 0) return;
    } else if (keys == 0) {
      consumer.attend_nothing(next_queries);
    } else {
      consumer.attend(keys, next_queries, hook);
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

template <class Shape, Pieces kPieces>
__device__ void reduce(const Arguments& a, const ColumnSumRing<Shape>& ring) {
  constexpr int kTiles = kPieces == Pieces::kItems ? 1 : Shape::kWarpgroups;
  RingPosition<ColumnSumRing<Shape>::kSlots> at;
  for (int number = blockIdx.x; number < a.pieces; number += gridDim.x) {
    const auto piece = Piece<Shape, kPieces>::find(a, number);
    reduce_column_sums<kTiles>(ring, at, static_cast<int>(threadIdx.x) - 32,
                               a.column_sums + static_cast<int64_t>(number) * a.key_tokens, a.keys(piece.batch),
                               a.key_tokens);
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
      if (threadIdx.x >= 32) reduce<Shape, kPieces>(a, ring);
    }
  } else {
    grow_registers<Shape::kConsumerRegisters>();
    consume<Shape, kPieces, kSums>(a, pipeline, ring, warpgroup - 1);
  }
  // What comes after this grid may rely on the one before it, too.
  if (kPieces == Pieces::kParts) wait_for_previous_kernels();
}

/// sums[item, key] = what the item's parts have there, added in order. Grid [keys of all threads, items].
constexpr int kAddThreads = 256;
template <int kParts>
__global__ void __launch_bounds__(kAddThreads) add_column_sums(const float* of_parts, float* sums, int keys) {
  wait_for_previous_kernels();
  const int key = static_cast<int>(blockIdx.x) * kAddThreads + static_cast<int>(threadIdx.x);
  if (key >= keys) return;
  const float* first = of_parts + static_cast<int64_t>(blockIdx.y) * kParts * keys + key;
  float sum = 0.0f;
#pragma unroll
  for (int part = 0; part < kParts; ++part) sum += first[part * static_cast<int64_t>(keys)];
  sums[static_cast<int64_t>(blockIdx.y) * keys + key] = sum;
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

/// Items, and how many of them, the last ones, are cut into parts. Two rounds of parts still take less time than one of
/// items.
struct Work {
  static constexpr int kRows = ShapeFor<128, true>::Type::kRows, kParts = ShapeFor<128, true>::Type::kWarpgroups;
  static_assert(kRows == kColumnGroup);

  int groups, items, cut;

  Work(const DeviceProperties& device, const AttentionParams& p)
      : groups(static_cast<int>(ceil_div(p.query_tokens, kRows))),
        items(static_cast<int>(p.batch * p.heads * groups)),
        cut(items_in_parts(items, device.multiprocessors, kParts, 2)) {}
};

template <int kHeadDim, bool kSums>
void launch(cudaStream_t stream, const DeviceProperties& device, const AttentionParams& params, float* sums_of_parts) {
  using Shape = typename ShapeFor<kHeadDim, kSums>::Type;
  using Together = typename ShapeFor<kHeadDim, kSums>::Together;
  static_assert(Shape::kRows == Work::kRows && Together::kRows == Work::kRows && Together::kWarpgroups == Work::kParts);
  const Work work(device, params);
  const int whole = work.items - work.cut;
  Arguments a{};
  a.out = {static_cast<__nv_bfloat16*>(params.out.data), params.out_strides, static_cast<int>(params.heads),
           static_cast<int>(params.query_tokens)};
  a.lse = params.lse;
  a.key_lengths = params.key_lengths;
  a.column_lse = params.column_lse;
  a.column_sums = params.column_sums;
  a.key_tokens = static_cast<int>(params.key_tokens);
  a.heads_per_kv_head = static_cast<int>(params.heads / params.kv_heads);
  a.groups = work.groups;
  a.scale_log2 = params.scale * kLog2E;
  if (whole > 0) {
    a.pieces = whole;
    a.lets_next_begin = work.cut > 0;
    launch_grid<Shape, Pieces::kItems, kSums>(stream, params, a, std::min(whole, device.multiprocessors));
  }
  if (work.cut == 0) return;
  a.first_item = whole;
  a.pieces = work.cut * Work::kParts;
  a.follows_items = whole > 0;
  a.column_sums = sums_of_parts;
  launch_grid<Together, Pieces::kParts, kSums>(stream, params, a, a.pieces);
  if constexpr (kSums) {
    const dim3 grid(static_cast<unsigned>(ceil_div(params.key_tokens, kAddThreads)), static_cast<unsigned>(work.cut));
    launch_overlapping(add_column_sums<Work::kParts>, grid, dim3(kAddThreads), 0, stream, "attention: column sums",
                       static_cast<const float*>(sums_of_parts), params.column_sums + whole * params.key_tokens,
                       a.key_tokens);
  }
}

}  // namespace

int64_t dense_attention_workspace_bytes(const DeviceProperties& device, const AttentionParams& params) {
  if (!computes_column_sums(params)) return 0;
  return Work(device, params).cut * int64_t{Work::kParts} * params.key_tokens * int64_t{sizeof(float)};
}

void launch_dense_attention(cudaStream_t stream, const DeviceProperties& device, const AttentionParams& params,
                            void* workspace) {
  auto* sums = static_cast<float*>(workspace);
  const bool with_sums = computes_column_sums(params);
  if (params.head_dim == 64) {
    with_sums ? launch<64, true>(stream, device, params, sums) : launch<64, false>(stream, device, params, sums);
  } else {
    with_sums ? launch<128, true>(stream, device, params, sums) : launch<128, false>(stream, device, params, sums);
  }
}

}  // namespace chipmunk::cuda::sm90
