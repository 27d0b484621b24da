#include <algorithm>

#include "cuda/cuda_error.h"
#include "cuda/launch.h"
#include "cuda/overlap.cuh"
#include "cuda/sm90/attention.h"
#include "cuda/sm90/attention_consumer.cuh"
#include "cuda/sm90/attention_rows.cuh"
#include "cuda/sm90/column_sums.cuh"
#include "cuda/sm90/tensor_map.h"

namespace chipmunk::cuda::sm90 {
namespace {

// With column sums, a block's rows are a group.
template <int kHeadDim, bool kSums>
struct ShapeFor;
template <>
struct ShapeFor<64, false> {
  using Type = AttentionShape<64, 3, 128, 4, true, 32>;
};
template <>
struct ShapeFor<128, false> {
  using Type = AttentionShape<128, 3, 128, 2, false, 32>;
};
template <>
struct ShapeFor<64, true> {
  using Type = AttentionShape<64, 3, 128, 4, false, 32>;
};
template <>
struct ShapeFor<128, true> {
  using Type = AttentionShape<128, 3, 96, 3, false, 32>;
};

struct Arguments {
  CUtensorMap q, k, v;
  HeadRowsOut out;
  float* lse;  // [B, H, N] or null
  const int32_t* key_lengths;
  const float* column_lse;  // [B, H, N]
  float* column_sums;       // [B, H, G, M]; G = blocks
  int key_tokens, heads_per_kv_head;
  int blocks, items;  // blocks of query rows a head; blocks of all heads
  float scale_log2;
};

/// The piece of work with that number: blocks of a head follow each other, so that its keys are in the cache.
struct Item {
  int batch, head, first_row, keys;

  template <class Shape>
  __device__ static Item find(const Arguments& a, int number) {
    Item item;
    const int head = number / a.blocks;
    item.first_row = (number - head * a.blocks) * Shape::kRows;
    item.batch = head / a.out.heads;
    item.head = head - item.batch * a.out.heads;
    item.keys = a.key_tokens;
    if (a.key_lengths != nullptr) item.keys = min(item.keys, max(a.key_lengths[item.batch], 0));
    return item;
  }
};

/// One thread asks the copy engine for all keys and values.
template <class Shape>
__device__ void produce(const Arguments& a, const AttentionPipeline<Shape>& pipeline) {
  typename AttentionPipeline<Shape>::Position at;
  for (int number = blockIdx.x; number < a.items; number += gridDim.x) {
    const Item item = Item::find<Shape>(a, number);
    const int kv_head = item.head / a.heads_per_kv_head;
    const int tiles = (item.keys + Shape::kTileKeys - 1) / Shape::kTileKeys;
    for (int t = 0; t < tiles; ++t) {
      const auto bring = [&](const CUtensorMap* map, uint32_t destination, uint32_t full, uint32_t empty) {
        wait(empty, at.parity ^ 1);
        arrive_expecting(full, Shape::kTileBytes);
#pragma unroll
        for (int block = 0; block < Shape::kHeadDim / kRowElements; ++block) {
          copy_box(destination + block * AttentionPipeline<Shape>::TileMatrix::kBlockBytes, map, full,
                   block * kRowElements, t * Shape::kTileKeys, kv_head, item.batch);
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

template <class Shape, bool kSums>
__device__ void consume(const Arguments& a, const AttentionPipeline<Shape>& pipeline, const ColumnSumRing<Shape>& ring,
                        int warpgroup) {
  AttentionConsumer<Shape, false> consumer(pipeline, warpgroup, a.scale_log2);
  RingPosition<ColumnSumRing<Shape>::kSlots> sums_at;
  const auto bring = [&](int number) {
    if (number >= a.items) return;
    const Item item = Item::find<Shape>(a, number);
    bring_queries(pipeline, warpgroup, a.q, item.first_row, item.head, item.batch);
  };
  bring(blockIdx.x);
  for (int number = blockIdx.x; number < a.items; number += gridDim.x) {
    const Item item = Item::find<Shape>(a, number);
    const auto next_queries = [&] { bring(number + static_cast<int>(gridDim.x)); };
    const OutRows rows(a.out, item.batch, item.head, item.first_row + warpgroup * Shape::kWarpgroupRows, a.out.tokens);
    if (item.keys == 0) {
      consumer.attend_nothing(next_queries);
    } else if constexpr (kSums) {
      consumer.attend(item.keys, next_queries,
                      ColumnSumHook<Shape>{ring,
                                           sums_at,
                                           static_cast<int>(threadIdx.x) / 32 - 4,
                                           static_cast<int>(threadIdx.x) % 32,
                                           {column_shift(a, rows, 0), column_shift(a, rows, 1)}});
    } else {
      consumer.attend(item.keys, next_queries);
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
  for (int number = blockIdx.x; number < a.items; number += gridDim.x) {
    const Item item = Item::find<Shape>(a, number);
    reduce_column_sums(ring, at, static_cast<int>(threadIdx.x) - 32,
                       a.column_sums + static_cast<int64_t>(number) * a.key_tokens, item.keys, a.key_tokens);
  }
}

template <class Shape, bool kSums>
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
  wait_for_previous_kernels();
  const int warpgroup = warpgroup_index();
  if (warpgroup == 0) {
    shrink_registers<Shape::kProducerRegisters>();
    if (threadIdx.x == 0) produce<Shape>(a, pipeline);
    if constexpr (kSums) {
      if (threadIdx.x >= 32) reduce<Shape>(a, ring);
    }
  } else {
    grow_registers<Shape::kConsumerRegisters>();
    consume<Shape, kSums>(a, pipeline, ring, warpgroup - 1);
  }
}

template <int kHeadDim, bool kSums>
void launch(cudaStream_t stream, const DeviceProperties& device, const AttentionParams& params) {
  using Shape = typename ShapeFor<kHeadDim, kSums>::Type;
  static_assert(!kSums || Shape::kRows == kColumnGroup);
  constexpr size_t kSharedBytes = kSums ? ColumnSumRing<Shape>::kSharedBytes : Shape::kSharedBytes;
  Arguments a{};
  a.q = make_head_map(params.q.data, params.q_strides, params.batch, params.query_tokens, params.heads, params.head_dim,
                      Shape::kWarpgroupRows);
  a.k = make_head_map(params.k.data, params.k_strides, params.batch, params.key_tokens, params.kv_heads,
                      params.head_dim, Shape::kTileKeys);
  a.v = make_head_map(params.v.data, params.v_strides, params.batch, params.key_tokens, params.kv_heads,
                      params.head_dim, Shape::kTileKeys);
  a.out = {static_cast<__nv_bfloat16*>(params.out.data), params.out_strides, static_cast<int>(params.heads),
           static_cast<int>(params.query_tokens)};
  a.lse = params.lse;
  a.key_lengths = params.key_lengths;
  a.column_lse = params.column_lse;
  a.column_sums = params.column_sums;
  a.key_tokens = static_cast<int>(params.key_tokens);
  a.heads_per_kv_head = static_cast<int>(params.heads / params.kv_heads);
  a.blocks = static_cast<int>(ceil_div(params.query_tokens, Shape::kRows));
  a.items = static_cast<int>(params.batch * params.heads * a.blocks);
  a.scale_log2 = params.scale * kLog2E;
  const auto kernel = dense_attention<Shape, kSums>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kSharedBytes)),
        "attention: shared memory");
  launch_overlapping(kernel, dim3(static_cast<unsigned>(std::min(a.items, device.multiprocessors))),
                     dim3(Shape::kThreads), kSharedBytes, stream, "attention", a);
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
