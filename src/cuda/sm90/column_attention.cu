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
  using Type = AttentionShape<128, 3, 112, 3, false, 56, true>;
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
  int batch, head, first_row;

  template <class Shape>
  __device__ static Item find(const Arguments& a, int number) {
    Item item;
    const int head = number / a.groups;
    item.first_row = (number - head * a.groups) * Shape::kRows;
    item.batch = head / a.out.heads;
    item.head = head - item.batch * a.out.heads;
    return item;
  }
};

/// The number of keys of this block's pieces of work, one after the other. Each is asked for a piece ahead: it would
/// come behind everything that is being gathered.
class KeyCounts {
 public:
  __device__ KeyCounts(const Arguments& a, int first) : a_(a), next_number_(first) { ask(); }

  /// The same in all lanes, and known to be, so that what depends on it may live in uniform registers.
  __device__ int next() {
    const int count = __shfl_sync(0xffffffffu, asked_, 0);
    ask();
    return count;
  }

 private:
  __device__ void ask() {
    if (next_number_ < a_.items) asked_ = a_.counts[next_number_];
    next_number_ += static_cast<int>(gridDim.x);
  }

  const Arguments& a_;
  int next_number_, asked_ = 0;
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
    Cursor now(a_), ahead(a_);
    // Keys of the tiles to come, asked for long before: they arrive behind what is being gathered.
    int asked[kTilesAhead];
#pragma unroll
    for (int i = 0; i < kTilesAhead; ++i) asked[i] = ask(ahead);
    while (true) {
#pragma unroll
      for (int i = 0; i < kTilesAhead; ++i) {
        if (now.number >= a_.items) return;
        bring_tile(now, asked[i]);
        asked[i] = ask(ahead);
        now.advance();
      }
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
  static constexpr int kTilesAhead = Shape::kStages;

  __device__ static int lane() { return static_cast<int>(threadIdx.x) % kWarpSize; }
  __device__ static int lane_chunk() { return lane() % kRowChunks; }
  __device__ static int warp_row() { return static_cast<int>(threadIdx.x) / kWarpSize * kWarpRows; }
  /// Of the warp's rows, the one that this lane copies a chunk of with copy i.
  __device__ static int copied_row(int i) { return i * kRowsAtOnce + lane() / kRowChunks; }

  /// A tile of keys, of all that this block works on.
  struct Cursor {
    const Arguments& a;
    int number = static_cast<int>(blockIdx.x), first = 0, keys;
    KeyCounts counts;

    __device__ explicit Cursor(const Arguments& arguments) : a(arguments), counts(arguments, number) {
      keys = counts.next();
      skip_empty();
    }
    __device__ void advance() {
      first += Shape::kTileKeys;
      if (first < keys) return;
      next_item();
      skip_empty();
    }

   private:
    __device__ void next_item() {
      number += static_cast<int>(gridDim.x);
      first = 0;
      keys = counts.next();
    }
    __device__ void skip_empty() {
      while (number < a.items && keys == 0) next_item();
    }
  };

  /// The key of the warp's row number lane() in a tile, any past the end of the list; goes on to the next tile.
  __device__ int ask(Cursor& at) const {
    if (at.number >= a_.items) return 0;
    int key = at.first + warp_row() + lane();
    if (lane() >= kWarpRows || key >= at.keys) {
      key = 0;
    } else if (at.keys != a_.key_tokens) {
      key = a_.indices[at.number * a_.capacity + key];
    }
    at.advance();
    return key;
  }

  /// `key` of lane i is that of the warp's row i.
  __device__ void bring_tile(const Cursor& now, int key) {
    const Item item = Item::find<Shape>(a_, now.number);
    const __nv_bfloat16* rows = a_.k + item.batch * a_.k_strides.batch + item.head * a_.k_strides.head;
    uint32_t row_bytes = a_.k_row_bytes;
    uint32_t tile = pipeline_.keys(at_.slot).address;
    uint32_t full = pipeline_.keys_full(at_.slot), empty = pipeline_.keys_empty(at_.slot);
    // Once for keys, once for values; not unrolled, since instructions that miss their cache hold up all warps.
#pragma unroll 1
    for (int part = 0; part < 2; ++part) {
      wait(empty, at_.parity ^ 1);
      const __nv_bfloat16* column = rows + lane_chunk() * 8;
      if (now.first + Shape::kTileKeys > now.keys) {
        gather_some(column, row_bytes, key, tile, now.keys - now.first);
      } else {
        gather(column, row_bytes, key, tile);
      }
      arrive_after_copies(full);
      rows = a_.v + item.batch * a_.v_strides.batch + item.head * a_.v_strides.head;
      row_bytes = a_.v_row_bytes;
      tile = pipeline_.values(at_.slot).address;
      full = pipeline_.values_full(at_.slot);
      empty = pipeline_.values_empty(at_.slot);
    }
    at_.advance();
  }

  __device__ void gather(const __nv_bfloat16* column, uint32_t row_bytes, int key, uint32_t tile) const {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const auto row_key = static_cast<uint32_t>(__shfl_sync(0xffffffffu, key, copied_row(i)));
      copy_16(tile + offsets_[i % kPatternCopies] + i / kPatternCopies * kSwizzlePattern,
              reinterpret_cast<const char*>(column) + static_cast<uint64_t>(row_key) * row_bytes);
    }
  }

  /// The first `count` rows of the tile, and zeros: a probability of 0 makes 0 only of numbers. (Any key in their place
  /// would do for the scores, but all blocks would wait for the same one.)
  __device__ void gather_some(const __nv_bfloat16* column, uint32_t row_bytes, int key, uint32_t tile,
                              int count) const {
#pragma unroll 1
    for (int i = 0; i < kCopies; ++i) {
      const int row = warp_row() + copied_row(i);
      const auto row_key = static_cast<uint32_t>(__shfl_sync(0xffffffffu, key, copied_row(i)));
      copy_16(TileMatrix{tile}.chunk(row, lane_chunk()),
              reinterpret_cast<const char*>(column) + static_cast<uint64_t>(row_key) * row_bytes, row < count);
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
__device__ void write_joined(const Arguments& a, bool all_keys, const OutRows& rows,
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
    weights[r] = rows.exists(r) ? row_weights(a.epilogue, all_keys, rows.lse_index(r), lse, rows.is_writer(r))
                                : RowWeights{0.0f, 0.0f};
    write_lse(a, rows, r, lse);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    // A part without weight does not count, whatever it is.
    const float divisor = consumer.divisor(r);
    const float scale = divisor == 0.0f || weights[r].sparse == 0.0f ? 0.0f : weights[r].sparse / divisor;
    rows.template write_sum<Shape::kHeadDim>(consumer.out, r, scale, known[r], weights[r].residual);
  }
}

template <class Shape>
__device__ void consume(const Arguments& a, const AttentionPipeline<Shape>& pipeline, int warpgroup) {
  AttentionConsumer<Shape, true> consumer(pipeline, warpgroup, a.scale_log2);
  const auto bring = [&](int number) {
    if (number >= a.items) return;
    const Item item = Item::find<Shape>(a, number);
    bring_queries(pipeline, warpgroup, a.q, item.first_row, item.head, item.batch);
  };
  bring(blockIdx.x);
  KeyCounts counts(a, static_cast<int>(blockIdx.x));
  for (int number = blockIdx.x; number < a.items; number += gridDim.x) {
    const Item item = Item::find<Shape>(a, number);
    const int keys = counts.next();
    const auto next_queries = [&] { bring(number + static_cast<int>(gridDim.x)); };
    if (keys > 0) {
      consumer.attend(keys, next_queries);
    } else {
      consumer.attend_nothing(next_queries);
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
      write_joined<Shape>(a, keys == a.key_tokens, rows, consumer);
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
  const int warpgroup = warpgroup_index();
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
                      Shape::kWarpgroupRows);
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
