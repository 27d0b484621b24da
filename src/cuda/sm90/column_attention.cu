#include <algorithm>

#include "cuda/column_epilogue.cuh"
#include "cuda/cuda_error.h"
#include "cuda/launch.h"
#include "cuda/overlap.cuh"
#include "cuda/sm90/attention.h"
#include "cuda/sm90/attention_consumer.cuh"
#include "cuda/sm90/attention_pieces.cuh"
#include "cuda/sm90/attention_plan.h"
#include "cuda/sm90/known_rows.cuh"
#include "cuda/sm90/tensor_map.h"

namespace chipmunk::cuda::sm90 {
namespace {

/// Together: for pieces whose rows all warpgroups share.
template <int kHeadDim>
struct ShapeFor;
template <>
struct ShapeFor<64> {
  using Type = AttentionShape<64, 3, 112, 4, true, 56>;
  using Together = AttentionShape<64, 3, 112, 4, false, 56>;
};
template <>
struct ShapeFor<128> {
  using Type = AttentionShape<128, 3, 112, 3, false, 56, true>;
  using Together = AttentionShape<128, 3, 112, 3, false, 56>;
};

/// Threads that gather keys and values, each of which announces its part of a tile.
constexpr int kProducerThreads = 128;
constexpr int kProducerWarps = kProducerThreads / kWarpSize;

struct Arguments : PieceArguments {
  CUtensorMap q, residual;
  const __nv_bfloat16 *k, *v;
  HeadStrides k_strides, v_strides;
  uint32_t k_row_bytes, v_row_bytes;  // from one token to the next
  const int32_t *indices, *counts;
  float* lse;  // [B, H, N] or null
  ColumnEpilogueOperands epilogue;
  int key_tokens;
  int64_t capacity;
  bool overlaps_last;  // ColumnAttentionParams has it
  float scale_log2;
};

/// The number of keys of this block's pieces of work, one after the other. Each is asked for a piece ahead: it would
/// come behind everything that is being gathered.
template <class Piece>
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
    if (next_number_ < a_.pieces) asked_ = a_.counts[Piece::item(a_, next_number_)];
    next_number_ += static_cast<int>(gridDim.x);
  }

  const Arguments& a_;
  int next_number_, asked_ = 0;
};

/// What gathers keys and values: every warp brings a part of each tile's rows, a few of them with each instruction.
/// After a piece's tiles comes what its result is joined with.
template <class Shape, class Piece, ColumnEpilogue kEpilogue>
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
        if (now.number >= a_.pieces) return;
        if (kJoins && now.first >= now.keys) {
          bring_known(now);
        } else {
          bring_tile(now, asked[i]);
        }
        asked[i] = ask(ahead);
        now.advance();
      }
    }
  }

 private:
  using TileMatrix = typename AttentionPipeline<Shape>::TileMatrix;
  static constexpr bool kJoins = kEpilogue != ColumnEpilogue::kNone;
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

  /// A tile of keys, of all that this block works on; or, past the last one of a piece that is joined, what it is
  /// joined with.
  struct Cursor {
    const Arguments& a;
    int number = static_cast<int>(blockIdx.x), first = 0, keys;
    KeyCounts<Piece> counts;

    __device__ explicit Cursor(const Arguments& arguments) : a(arguments), counts(arguments, number) {
      keys = counts.next();
      skip_empty();
    }
    __device__ void advance() {
      const bool known = kJoins && first >= keys;
      first += Shape::kTileKeys;
      if (kJoins ? !known : first < keys) return;
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
      while (!kJoins && number < a.pieces && keys == 0) next_item();
    }
  };

  /// The key of the warp's row number lane() in a tile, any past the end of the list; goes on to the next tile.
  __device__ int ask(Cursor& at) const {
    if (at.number >= a_.pieces) return 0;
    int key = at.first + warp_row() + lane();
    if (lane() >= kWarpRows || key >= at.keys) {
      key = 0;
    } else if (at.keys != a_.key_tokens) {
      key = a_.indices[Piece::item(a_, at.number) * a_.capacity + key];
    }
    at.advance();
    return key;
  }

  /// `key` of lane i is that of the warp's row i.
  __device__ void bring_tile(const Cursor& now, int key) {
    const Piece piece = Piece::find(a_, now.number);
    const __nv_bfloat16* rows = a_.k + piece.batch * a_.k_strides.batch + piece.head * a_.k_strides.head;
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
      rows = a_.v + piece.batch * a_.v_strides.batch + piece.head * a_.v_strides.head;
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

  /// The first `count` rows of the tile, and zeros as far as rows are multiplied: a probability of 0 makes 0 only of
  /// numbers. (Any keys in their place would do for the scores, but the same one for all blocks would be waited for.)
  __device__ void gather_some(const __nv_bfloat16* column, uint32_t row_bytes, int key, uint32_t tile,
                              int count) const {
    const int end = AttentionConsumer<Shape, true>::width(count);
#pragma unroll 1
    for (int i = 0; i < kCopies; ++i) {
      const int row = warp_row() + copied_row(i);
      const auto row_key = static_cast<uint32_t>(__shfl_sync(0xffffffffu, key, copied_row(i)));
      if (row >= end) continue;
      copy_16(TileMatrix{tile}.chunk(row, lane_chunk()),
              reinterpret_cast<const char*>(column) + static_cast<uint64_t>(row_key) * row_bytes, row < count);
    }
  }

  /// A piece's rows of the residual and their logarithms, as one more stage (KnownRows).
  __device__ void bring_known(const Cursor& now) {
    using Known = KnownRows<Shape>;
    const Piece piece = Piece::find(a_, now.number);
    const uint32_t full = pipeline_.values_full(at_.slot);
    wait(pipeline_.keys_empty(at_.slot), at_.parity ^ 1);
    wait(pipeline_.values_empty(at_.slot), at_.parity ^ 1);
    const Known known(pipeline_, at_.slot);
    if (threadIdx.x == 0) {
      constexpr int kHalves = (Piece::kRows + Known::kHalfRows - 1) / Known::kHalfRows;
      expect_bytes(full, kHalves * Known::Half::kBytes);
#pragma unroll 1
      for (int half = 0; half < kHalves; ++half) {
        const uint32_t rows = half == 0 ? known.first.address : known.second.address;
#pragma unroll
        for (int block = 0; block < Known::Half::kBlocks; ++block) {
          copy_box(rows + block * Known::Half::kBlockBytes, &a_.residual, full, block * kRowElements,
                   piece.first_row + half * Known::kHalfRows, piece.head, piece.batch);
        }
      }
    }
    if constexpr (reads_lse_all(kEpilogue)) {
      const int64_t start = static_cast<int64_t>(piece.batch * a_.out.heads + piece.head) * a_.out.tokens;
#pragma unroll 1
      for (int row = static_cast<int>(threadIdx.x); row < Piece::kRows; row += kProducerThreads) {
        const int token = piece.first_row + row;
        if (token >= a_.out.tokens) continue;
        copy_4(known.lse_all(row), a_.epilogue.lse_all + start + token);
        if constexpr (reads_lse_rest(kEpilogue)) copy_4(known.lse_rest(row), a_.epilogue.lse_rest + start + token);
      }
    }
    // Who waits for values may take the keys' slot for full, too.
    arrive(pipeline_.keys_full(at_.slot));
    arrive_after_copies(full);
    at_.advance();
  }

  const Arguments& a_;
  const AttentionPipeline<Shape>& pipeline_;
  typename AttentionPipeline<Shape>::Position at_;
  uint32_t offsets_[kPatternCopies];
};

__device__ void write_lse(const Arguments& a, const OutRows& rows, int r, float lse) {
  if (a.lse != nullptr && rows.is_writer(r)) a.lse[rows.lse_index(r)] = lse;
}

/// The result joined with what is known of the other keys. row: the thread's first one, of the piece's.
template <class Shape, ColumnEpilogue kEpilogue>
__device__ void write_joined(const Arguments& a, bool all_keys, const OutRows& rows, int row,
                             AttentionConsumer<Shape, true>& consumer) {
  const KnownRows<Shape> known(consumer.pipeline, consumer.wait_stage());
  uint32_t residual[2][Shape::kHeadDim / 8];
  known.load(row, consumer.lane, residual);
  KnownLse known_lse[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if constexpr (reads_lse_all(kEpilogue)) known_lse[r].all = __uint_as_float(load_shared(known.lse_all(row + 8 * r)));
    if constexpr (reads_lse_rest(kEpilogue))
      known_lse[r].rest = __uint_as_float(load_shared(known.lse_rest(row + 8 * r)));
  }
  __syncwarp();
  consumer.release_stage();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float lse = consumer.lse(r);
    const RowWeights weights = row_weights(kEpilogue, all_keys, known_lse[r], lse);
    write_lse(a, rows, r, lse);
    if (kEpilogue == ColumnEpilogue::kSplit && rows.is_writer(r))
      a.epilogue.lse_rest[rows.lse_index(r)] = known_lse[r].rest;
    // A part without weight does not count, whatever it is.
    const float divisor = consumer.divisor(r);
    const float scale = divisor == 0.0f || weights.sparse == 0.0f ? 0.0f : weights.sparse / divisor;
    rows.template write_sum<Shape::kHeadDim>(consumer.out, r, scale, residual[r], weights.residual);
  }
}

template <class Shape, ColumnEpilogue kEpilogue>
__device__ void write_result(const Arguments& a, bool all_keys, const OutRows& rows, int row,
                             AttentionConsumer<Shape, true>& consumer) {
  if constexpr (kEpilogue == ColumnEpilogue::kNone) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      write_lse(a, rows, r, consumer.lse(r));
      const float divisor = consumer.divisor(r);
      rows.template write<Shape::kHeadDim>(consumer.out, r, divisor == 0.0f ? 0.0f : 1.0f / divisor);
    }
  } else {
    write_joined<Shape, kEpilogue>(a, all_keys, rows, row, consumer);
  }
}

template <class Shape, Pieces kPieces, ColumnEpilogue kEpilogue>
__device__ void consume(const Arguments& a, const AttentionPipeline<Shape>& pipeline, int warpgroup) {
  using Piece = Piece<Shape, kPieces>;
  AttentionConsumer<Shape, true> consumer(pipeline, warpgroup, a.scale_log2);
  const auto bring = [&](int number) {
    if (number >= a.pieces) return;
    Piece::find(a, number).bring_rows(pipeline, warpgroup, a.q);
  };
  bring(blockIdx.x);
  KeyCounts<Piece> counts(a, static_cast<int>(blockIdx.x));
  for (int number = blockIdx.x; number < a.pieces; number += gridDim.x) {
    const Piece piece = Piece::find(a, number);
    const int keys = counts.next();
    if constexpr (kPieces == Pieces::kItems) {
      const auto next_queries = [&] { bring(number + static_cast<int>(gridDim.x)); };
      if (keys > 0) {
        consumer.attend(keys, next_queries);
      } else {
        consumer.attend_nothing(next_queries);
      }
    } else {
      consumer.attend_together(keys);
      // A block has one part.
      if (warpgroup > 0) return;
    }
    write_result<Shape, kEpilogue>(a, keys == a.key_tokens, piece.rows(a, warpgroup),
                                   Piece::warpgroup_row(warpgroup) + thread_row(), consumer);
  }
}

/// A kernel for each epilogue: code that comes by once a piece of work has to be fetched again every time.
template <class Shape, Pieces kPieces, ColumnEpilogue kEpilogue>
__global__ void __launch_bounds__(Shape::kThreads, 1) column_attention(const __grid_constant__ Arguments a) {
  extern __shared__ unsigned char shared[];
  const AttentionPipeline<Shape> pipeline(shared);
  if (threadIdx.x == 0) {
    pipeline.init(kProducerThreads);
    prefetch_map(&a.q);
    if constexpr (kEpilogue != ColumnEpilogue::kNone) prefetch_map(&a.residual);
  }
  __syncthreads();
  if (kPieces == Pieces::kItems || !a.follows_items) {
    if (!a.overlaps_last) wait_for_previous_kernels();
    if (kPieces == Pieces::kItems && a.lets_next_begin) let_next_kernel_begin();
  }
  const int warpgroup = warpgroup_index();
  if (warpgroup == 0) {
    shrink_registers<Shape::kProducerRegisters>();
    Gatherer<Shape, Piece<Shape, kPieces>, kEpilogue>(a, pipeline).run();
  } else {
    grow_registers<Shape::kConsumerRegisters>();
    consume<Shape, kPieces, kEpilogue>(a, pipeline, warpgroup - 1);
  }
  // What comes after this grid may rely on the one before it, too.
  if (kPieces == Pieces::kParts || a.overlaps_last) wait_for_previous_kernels();
}

using Kernel = void (*)(Arguments);
template <class Shape, Pieces kPieces>
Kernel kernel_with(ColumnEpilogue epilogue) {
  switch (epilogue) {
    case ColumnEpilogue::kNone: return column_attention<Shape, kPieces, ColumnEpilogue::kNone>;
    case ColumnEpilogue::kAdd: return column_attention<Shape, kPieces, ColumnEpilogue::kAdd>;
    case ColumnEpilogue::kSubtract: return column_attention<Shape, kPieces, ColumnEpilogue::kSubtract>;
    case ColumnEpilogue::kSplit: return column_attention<Shape, kPieces, ColumnEpilogue::kSplit>;
    case ColumnEpilogue::kMerge: return column_attention<Shape, kPieces, ColumnEpilogue::kMerge>;
  }
  return nullptr;
}

template <class Shape>
void launch_grid(cudaStream_t stream, Kernel kernel, const Arguments& a, int blocks) {
  check(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(Shape::kSharedBytes)),
      "column_attention: shared memory");
  launch_overlapping(kernel, dim3(static_cast<unsigned>(blocks)), dim3(Shape::kThreads), Shape::kSharedBytes, stream,
                     "column_attention", a);
}

template <int kHeadDim>
void launch(cudaStream_t stream, const DeviceProperties& device, const ColumnAttentionParams& params) {
  using Shape = typename ShapeFor<kHeadDim>::Type;
  using Together = typename ShapeFor<kHeadDim>::Together;
  static_assert(Shape::kRows == kColumnGroup && Together::kRows == kColumnGroup);
  Arguments a{};
  a.q = make_head_map(params.q.data, params.q_strides, params.batch, params.query_tokens, params.heads, params.head_dim,
                      Shape::kWarpgroupRows);
  if (params.epilogue != ColumnEpilogue::kNone) {
    a.residual = make_head_map(params.residual.data, params.residual_strides, params.batch, params.query_tokens,
                               params.heads, params.head_dim, KnownRows<Shape>::kHalfRows);
  }
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
  a.scale_log2 = params.scale * kLog2E;
  a.overlaps_last = params.overlaps_last;
  const auto items = static_cast<int>(params.batch * params.heads * a.groups);
  const int parts = items_in_parts(items, device.multiprocessors, Shape::kWarpgroups, 1);
  // What a grid lets in may rely on all before it; parts rely on no more than whole items do.
  a.lets_next_begin = parts > 0 || !params.overlaps_last;
  if (items > parts) {
    a.pieces = items - parts;
    launch_grid<Shape>(stream, kernel_with<Shape, Pieces::kItems>(params.epilogue), a,
                       std::min(a.pieces, device.multiprocessors));
  }
  if (parts > 0) {
    a.first_item = items - parts;
    a.pieces = parts * Together::kWarpgroups;
    a.follows_items = items > parts;
    launch_grid<Together>(stream, kernel_with<Together, Pieces::kParts>(params.epilogue), a, a.pieces);
  }
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
