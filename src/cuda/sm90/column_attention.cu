#include <algorithm>

#include "cuda/column_epilogue.cuh"
#include "cuda/cuda_error.h"
#include "cuda/launch.h"
#include "cuda/sm90/attention.h"
#include "cuda/sm90/attention_consumer.cuh"
#include "cuda/sm90/attention_rows.cuh"
#include "cuda/sm90/tensor_map.h"

namespace chipmunk::cuda::sm90 {
namespace {

template <int kHeadDim>
struct ShapeFor;
template <>
struct ShapeFor<64> {
  using Type = AttentionShape<64, 3, 112, 4, true, 56>;
};
template <>
struct ShapeFor<128> {
  using Type = AttentionShape<128, 3, 112, 3, false, 56>;
};

/// Threads that gather keys and values, each of which announces its part of a tile.
constexpr int kProducerThreads = 128;
constexpr int kProducerWarps = kProducerThreads / kWarpSize;

struct Arguments {
  CUtensorMap q;
  const __nv_bfloat16 *k, *v;
  HeadStrides k_strides, v_strides;
  uint32_t k_row_bytes, v_row_bytes;  // from one token to the next
  const int32_t *indices, *counts;
  HeadRowsOut out;
  float* lse;  // [B, H, N] or null
  ColumnEpilogueOperands epilogue;
  int key_tokens;
  int64_t capacity;
  int groups, items;  // groups of query rows a head; of all heads
  float scale_log2;
};

/// The piece of work with that number: groups of a head follow each other, so that its keys stay in the cache.
struct Item {
  int batch, head, first_row, keys;
  const int32_t* ids;  // or null: 0, 1, ...

  template <class Shape>
  __device__ static Item find(const Arguments& a, int number) {
    Item item;
    const int head = number / a.groups;
    item.first_row = (number - head * a.groups) * Shape::kRows;
    item.batch = head / a.out.heads;
    item.head = head - item.batch * a.out.heads;
    item.keys = a.counts[number];
    item.ids = item.keys == a.key_tokens ? nullptr : a.indices + number * a.capacity;
    return item;
  }
};

/// What gathers keys and values: every warp brings a part of each tile's rows, a few of them with each instruction.
template <class Shape>
class Gatherer {
 public:
  __device__ Gatherer(const Arguments& a, const AttentionPipeline<Shape>& pipeline) : a_(a), pipeline_(pipeline) {
#pragma unroll
    for (int i = 0; i < kPatternCopies; ++i)
      offsets_[i] = TileMatrix{0}.chunk(warp_row() + copied_row(i), lane_chunk());
  }

  __device__ void run() {
    uint32_t q_parity = 1;
    for (int number = blockIdx.x; number < a_.items; number += gridDim.x) {
      const Item item = Item::find<Shape>(a_, number);
      if (item.keys == 0) continue;
      const int column = lane_chunk() * 8;
      const __nv_bfloat16* k = a_.k + item.batch * a_.k_strides.batch + item.head * a_.k_strides.head + column;
      const __nv_bfloat16* v = a_.v + item.batch * a_.v_strides.batch + item.head * a_.v_strides.head + column;
      int next_key = key_of(item, 0);
      for (int first = 0; first < item.keys; first += Shape::kTileKeys) {
        int keys[kCopies];
#pragma unroll
        for (int i = 0; i < kCopies; ++i) keys[i] = __shfl_sync(0xffffffffu, next_key, copied_row(i));
        next_key = key_of(item, first + Shape::kTileKeys);
        const bool full = first + Shape::kTileKeys <= item.keys;
        wait(pipeline_.keys_empty(at_.slot), at_.parity ^ 1);
        gather(k, a_.k_row_bytes, keys, full, pipeline_.keys(at_.slot).address);
        arrive_after_copies(pipeline_.keys_full(at_.slot));
        // The first keys are under way before the warps that compute let go of the last group's queries.
        if (first == 0 && threadIdx.x == 0) bring_queries(item, q_parity);
        wait(pipeline_.values_empty(at_.slot), at_.parity ^ 1);
        gather(v, a_.v_row_bytes, keys, full, pipeline_.values(at_.slot).address);
        arrive_after_copies(pipeline_.values_full(at_.slot));
        at_.advance();
      }
      q_parity ^= 1;
    }
  }

 private:
  using TileMatrix = typename AttentionPipeline<Shape>::TileMatrix;
  static constexpr int kWarpRows = Shape::kTileKeys / kProducerWarps;
  static constexpr int kRowChunks = Shape::kHeadDim / 8;
  static constexpr int kRowsAtOnce = kWarpSize / kRowChunks;
  static constexpr int kCopies = kWarpRows / kRowsAtOnce;
  static_assert(kWarpRows <= kWarpSize && kWarpRows % kRowsAtOnce == 0);
  // The places of rows in shared memory repeat after this many copies, a pattern further on.
  static constexpr int kPatternCopies = 8 / kRowsAtOnce;

  __device__ static int lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }
  __device__ static int lane_chunk() { return lane() % kRowChunks; }
  __device__ static int warp_row() { return static_cast<int>(threadIdx.x) / kWarpSize * kWarpRows; }
  /// Of the warp's rows, the one that this lane copies a chunk of with copy i.
  __device__ static int copied_row(int i) { return i * kRowsAtOnce + lane() / kRowChunks; }

  /// The key of the warp's row number lane() in the tile that starts at place `first` of the list; -1 past the end.
  __device__ static int key_of(const Item& item, int first) {
    const int place = first + warp_row() + lane();
    if (lane() >= kWarpRows || place >= item.keys) return -1;
    return item.ids != nullptr ? item.ids[place] : place;
  }

  __device__ void gather(const __nv_bfloat16* column, uint32_t row_bytes, const int (&keys)[kCopies], bool full,
                         uint32_t tile) const {
    const auto source = [&](int key) {
      return reinterpret_cast<const char*>(column) + static_cast<uint64_t>(static_cast<uint32_t>(key)) * row_bytes;
    };
    const auto destination = [&](int i) {
      return tile + offsets_[i % kPatternCopies] + i / kPatternCopies * kSwizzlePattern;
    };
    if (full) {
#pragma unroll
      for (int i = 0; i < kCopies; ++i) copy_16(destination(i), source(keys[i]));
    } else {
#pragma unroll
      for (int i = 0; i < kCopies; ++i) copy_16(destination(i), source(max(keys[i], 0)), keys[i] >= 0);
    }
  }

  __device__ void bring_queries(const Item& item, uint32_t parity) const {
    wait(pipeline_.q_empty(), parity);
    arrive_expecting(pipeline_.q_full(), Shape::kQBytes);
    const auto q = pipeline_.q();
#pragma unroll
    for (int block = 0; block < Shape::kHeadDim / kRowElements; ++block) {
      copy_box(q.address + block * q.kBlockBytes, &a_.q, pipeline_.q_full(), block * kRowElements, item.first_row,
               item.head, item.batch);
    }
  }

  const Arguments& a_;
  const AttentionPipeline<Shape>& pipeline_;
  typename AttentionPipeline<Shape>::Position at_;
  uint32_t offsets_[kPatternCopies];
};

__device__ void write_lse(const Arguments& a, const OutRows& rows, int r, float lse) {
  if (a.lse != nullptr && rows.is_writer(r)) a.lse[rows.lse_index(r)] = lse;
}

/// The result joined with what is known of the other keys.
template <class Shape>
__device__ void write_joined(const Arguments& a, const Item& item, const OutRows& rows,
                             const AttentionConsumer<Shape, true>& consumer) {
  // Everything is on its way before the first use, or each row would wait for memory again.
  RowChunks<Shape::kHeadDim> known[2];
#pragma unroll
  for (int r = 0; r < 2; ++r)
    known[r] = rows.template load<Shape::kHeadDim>(a.epilogue.residual, a.epilogue.residual_strides, r);
  RowWeights weights[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float lse = consumer.lse(r);
    weights[r] = rows.exists(r)
                     ? row_weights(a.epilogue, item.ids == nullptr, rows.lse_index(r), lse, rows.is_writer(r))
                     : RowWeights{0.0f, 0.0f};
    write_lse(a, rows, r, lse);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float divisor = consumer.divisor(r), scale = divisor == 0.0f ? 0.0f : weights[r].sparse / divisor;
    rows.template write_sum<Shape::kHeadDim>(consumer.out, r, scale, known[r], weights[r].residual);
  }
}

template <class Shape>
__device__ void consume(const Arguments& a, const AttentionPipeline<Shape>& pipeline, int warpgroup) {
  AttentionConsumer<Shape, true> consumer(pipeline, warpgroup, a.scale_log2);
  for (int number = blockIdx.x; number < a.items; number += gridDim.x) {
    const Item item = Item::find<Shape>(a, number);
    if (item.keys > 0) {
      consumer.attend(item.keys);
    } else {
      consumer.attend_nothing();
    }
    const OutRows rows(a.out, item.batch, item.head, item.first_row + warpgroup * Shape::kWarpgroupRows, a.out.tokens);
    if (a.epilogue.kind == ColumnEpilogue::kNone) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        write_lse(a, rows, r, consumer.lse(r));
        const float divisor = consumer.divisor(r);
        rows.template write<Shape::kHeadDim>(consumer.out, r, divisor == 0.0f ? 0.0f : 1.0f / divisor);
      }
    } else {
      write_joined<Shape>(a, item, rows, consumer);
    }
  }
}

template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1) column_attention(const __grid_constant__ Arguments a) {
  extern __shared__ unsigned char shared[];
  const AttentionPipeline<Shape> pipeline(shared);
  if (threadIdx.x == 0) {
    pipeline.init(kProducerThreads);
    prefetch_map(&a.q);
  }
  __syncthreads();
  const int warpgroup = static_cast<int>(threadIdx.x) / 128;
  if (warpgroup == 0) {
    shrink_registers<Shape::kProducerRegisters>();
    Gatherer<Shape>(a, pipeline).run();
  } else {
    grow_registers<Shape::kConsumerRegisters>();
    consume<Shape>(a, pipeline, warpgroup - 1);
  }
}

template <int kHeadDim>
void launch(cudaStream_t stream, const DeviceProperties& device, const ColumnAttentionParams& params) {
  using Shape = typename ShapeFor<kHeadDim>::Type;
  static_assert(Shape::kRows == kColumnGroup);
  Arguments a{};
  a.q = make_head_map(params.q.data, params.q_strides, params.batch, params.query_tokens, params.heads, params.head_dim,
                      Shape::kRows);
  a.k = static_cast<const __nv_bfloat16*>(params.k.data);
  a.v = static_cast<const __nv_bfloat16*>(params.v.data);
  a.k_strides = params.k_strides;
  a.v_strides = params.v_strides;
  a.k_row_bytes = static_cast<uint32_t>(params.k_strides.token * 2);
  a.v_row_bytes = static_cast<uint32_t>(params.v_strides.token * 2);
  a.indices = params.indices;
  a.counts = params.counts;
  a.out = {static_cast<__nv_bfloat16*>(params.out.data), params.out_strides, static_cast<int>(params.heads),
           static_cast<int>(params.query_tokens)};
  a.lse = params.lse;
  a.epilogue = column_epilogue_operands(params);
  a.key_tokens = static_cast<int>(params.key_tokens);
  a.capacity = params.capacity;
  a.groups = static_cast<int>(ceil_div(params.query_tokens, kColumnGroup));
  a.items = static_cast<int>(params.batch * params.heads * a.groups);
  a.scale_log2 = params.scale * kLog2E;
  const auto kernel = column_attention<Shape>;
  check(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(Shape::kSharedBytes)),
      "column_attention: shared memory");
  kernel<<<std::min(a.items, device.multiprocessors), Shape::kThreads, Shape::kSharedBytes, stream>>>(a);
  check_launch("column_attention");
}

}  // namespace

void launch_column_attention(cudaStream_t stream, const DeviceProperties& device, const ColumnAttentionParams& params) {
  if (params.head_dim == 64) {
    launch<64>(stream, device, params);
  } else {
    launch<128>(stream, device, params);
  }
}

}  // namespace chipmunk::cuda::sm90
