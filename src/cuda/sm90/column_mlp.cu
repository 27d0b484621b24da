#include <algorithm>

#include "cuda/activations.cuh"
#include "cuda/any_type.cuh"
#include "cuda/cuda_error.h"
#include "cuda/launch.h"
#include "cuda/sm90/attention_rows.cuh"
#include "cuda/sm90/column_mlp.h"
#include "cuda/sm90/tensor_map.h"

// Two kernels, each a matmul of which one operand's rows are gathered:
//   renew: features x tokens = W1[kept] x^T; activations and the cache change places, their differences stay behind
//   add:   tokens x channels = differences^T W2[kept], added to the cached output
// A block has a warpgroup that brings operands and two that compute; it takes tile after tile.
namespace chipmunk::cuda::sm90 {
namespace {

constexpr int kTokens = static_cast<int>(kMlpBlock);
/// Of a step along the depth of a product.
constexpr int kDepth = 64;
/// Kept features, or output channels, of a tile.
constexpr int kTileWidth = 256;
constexpr int kStages = 4;
constexpr int kConsumers = 2;  // warpgroups
constexpr int kThreads = (kConsumers + 1) * 128;
constexpr int kProducerThreads = 128;
constexpr int kProducerRegisters = 72, kConsumerRegisters = 216;
/// At most so many blocks share a tile that is left over.
constexpr int kMaxParts = 6;
/// Differences of more token blocks than this holds are computed in several rounds.
constexpr int64_t kDifferenceBytes = int64_t{512} << 20;

/// What a stage holds: the gathered operand and the one that comes in boxes.
constexpr int kGatheredBytes = kTileWidth * kDepth * 2, kBoxedBytes = kTokens * kDepth * 2;
constexpr int kStageBytes = kGatheredBytes + kBoxedBytes;
constexpr int kBarriersOffset = kStages * kStageBytes;
constexpr size_t kSharedBytes = kBarriersOffset + 2 * kStages * 8 + 16 + kSwizzlePattern;

/// Shared memory, and a pair of barriers for each stage: full when it is there, empty when both warpgroups are done.
struct Pipeline {
  uint32_t base;

  __device__ explicit Pipeline(const void* shared)
      : base((shared_address(shared) + kSwizzlePattern - 1) / kSwizzlePattern * kSwizzlePattern) {}
  __device__ uint32_t gathered(int stage) const { return base + stage * kStageBytes; }
  __device__ uint32_t boxed(int stage) const { return gathered(stage) + kGatheredBytes; }
  __device__ uint32_t full(int stage) const { return base + kBarriersOffset + stage * 8; }
  __device__ uint32_t empty(int stage) const { return full(stage) + kStages * 8; }
  /// A word for the block's own use.
  __device__ int* word() const {
    return static_cast<int*>(__cvta_shared_to_generic(base + kBarriersOffset + 2 * kStages * 8));
  }

  __device__ void init() const {
    for (int stage = 0; stage < kStages; ++stage) {
      // Every thread that gathers, and the one that asks for the box.
      init_barrier(full(stage), kProducerThreads + 1);
      init_barrier(empty(stage), kConsumers * 4);
    }
    fence_barrier_init();
  }
};
using Position = RingPosition<kStages>;

struct Arguments {
  CUtensorMap boxed;  // renew: x; add: the differences
  const __nv_bfloat16* weight;
  uint32_t weight_row_bytes;
  const int32_t *indices, *counts;  // of this launch's first token block on
  int64_t capacity;
  int features, blocks, first_block, blocks_per_sample, rows;
  int steps;  // renew: along the channels
  // renew
  const void* bias;  // or null
  DType bias_dtype;
  __nv_bfloat16* activations;  // [B, F, T]
  int64_t activation_batch_stride, activation_stride;
  __nv_bfloat16* differences;  // [blocks, kept_rows, kTokens]
  int64_t kept_rows;
  // add
  HeadRowsOut out;
  int channel_tiles;
  int whole_tiles, parts;  // tiles that one block computes; blocks that share each of the others
  float4* partial_sums;    // [tiles left over, parts, 32, 256]
  int* arrivals;           // [tiles left over], zeroed by renew

  __device__ int count(int block) const { return counts[block]; }
  __device__ int batch(int block) const { return (first_block + block) / blocks_per_sample; }
  __device__ int first_row(int block) const { return (first_block + block) % blocks_per_sample * kTokens; }
  /// The feature in one place of a block's list.
  __device__ int feature(int block, int count, int position) const {
    return count == features ? position : indices[block * capacity + position];
  }
};

/// A warp's view of the renew kernel's tiles: those of all token blocks for one range of the kept features follow each
/// other, so that they share its weights. Ranges that a block does not have are passed over.
class RenewTiles {
 public:
  __device__ explicit RenewTiles(const Arguments& a) : a_(a), next_(static_cast<int>(blockIdx.x)) {
    const int ranges = static_cast<int>(a.kept_rows / kTileWidth);
    end_ = ranges * a.blocks;
  }

  int block, range, count;
  /// Goes to the next tile, if there is one. All lanes take part.
  __device__ bool next() {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    while (true) {
      if (found_ == 0) {
        if (first_ >= end_ || next_ >= end_) return false;
        first_ = next_;
        const int mine = first_ + lane * static_cast<int>(gridDim.x);
        count_ = mine < end_ ? a_.count(mine % a_.blocks) : 0;
        found_ = __ballot_sync(0xffffffffu, mine < end_ && mine / a_.blocks * kTileWidth < count_);
        next_ = first_ + 32 * static_cast<int>(gridDim.x);
        if (found_ == 0) continue;
      }
      const int from = __ffs(static_cast<int>(found_)) - 1;
      found_ &= found_ - 1;
      const int tile = __shfl_sync(0xffffffffu, first_ + from * static_cast<int>(gridDim.x), 0);
      count = __shfl_sync(0xffffffffu, count_, from);
      range = tile / a_.blocks;
      block = tile - range * a_.blocks;
      return true;
    }
  }

 private:
  const Arguments& a_;
  int next_, end_, first_ = 0, count_ = 0;
  uint32_t found_ = 0;
};

/// The add kernel's tiles, and the steps along its depth: whole tiles first, then a part of one that is left over.
class AddTiles {
 public:
  __device__ explicit AddTiles(const Arguments& a) : a_(a), next_(static_cast<int>(blockIdx.x)) {}

  int block, channels, count, first_step, end_step, left_over, part;
  __device__ bool next() {
    if (next_ < 0) return false;
    int tile = next_, parts = 1;
    part = 0;
    left_over = -1;
    if (tile < a_.whole_tiles) {
      next_ += static_cast<int>(gridDim.x);
    } else {
      const int unit = static_cast<int>(blockIdx.x), tiles = a_.blocks * a_.channel_tiles;
      next_ = -1;
      if (unit >= (tiles - a_.whole_tiles) * a_.parts) return false;
      left_over = unit / a_.parts;
      part = unit - left_over * a_.parts;
      parts = a_.parts;
      tile = a_.whole_tiles + left_over;
    }
    // Blocks of one range of channels follow each other: they share its weights.
    channels = tile / a_.blocks;
    block = tile - channels * a_.blocks;
    count = __shfl_sync(0xffffffffu, a_.count(block), 0);
    const int steps = (count + kDepth - 1) / kDepth;
    first_step = steps * part / parts;
    end_step = steps * (part + 1) / parts;
    return true;
  }

 private:
  const Arguments& a_;
  int next_;
};

__device__ int lane_index() { return static_cast<int>(threadIdx.x) % 32; }
__device__ int warp_index() { return __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0); }

/// Brings tiles of x and the kept rows of the first weight.
__device__ void bring_renew(const Arguments& a, const Pipeline& pipeline) {
  using Gathered = SharedMatrix<kTileWidth, kDepth>;
  constexpr int kChunks = kDepth / 8, kRowsAtOnce = kProducerThreads / kChunks, kCopies = kTileWidth / kRowsAtOnce;
  const int thread = static_cast<int>(threadIdx.x), row = thread / kChunks, chunk = thread % kChunks;
  static_assert(kRowsAtOnce % 8 == 0);  // so that all of a thread's rows lie alike in the swizzle
  const uint32_t offset = Gathered{0}.chunk(row, chunk);
  Position at;
  RenewTiles tiles(a);
  while (tiles.next()) {
    uint32_t rows[kCopies];
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      // Places past the list's end take its last feature; nobody looks at the result.
      const int place = min(tiles.range * kTileWidth + row + i * kRowsAtOnce, tiles.count - 1);
      rows[i] = static_cast<uint32_t>(a.feature(tiles.block, tiles.count, place)) * a.weight_row_bytes + chunk * 16;
    }
    const int batch = a.batch(tiles.block), first_row = a.first_row(tiles.block);
    const char* weight = reinterpret_cast<const char*>(a.weight);
#pragma unroll 1
    for (int step = 0; step < a.steps; ++step) {
      wait(pipeline.empty(at.slot), at.parity ^ 1);
      const uint32_t full = pipeline.full(at.slot);
      if (thread == 0) {
        arrive_expecting(full, kBoxedBytes);
        copy_box(pipeline.boxed(at.slot), &a.boxed, full, step * kDepth, first_row, 0, batch);
      }
      const uint32_t to = pipeline.gathered(at.slot) + offset;
#pragma unroll
      for (int i = 0; i < kCopies; ++i) copy_16(to + i * kRowsAtOnce * kSwizzleRow, weight + rows[i]);
      arrive_after_copies(full);
      weight += kDepth * 2;
      at.advance();
    }
  }
}

/// Brings tiles of the differences and the kept rows of the second weight.
__device__ void bring_add(const Arguments& a, const Pipeline& pipeline) {
  using Gathered = SharedMatrix<kDepth, kTileWidth>;
  constexpr int kChunks = kTileWidth / 8, kCopies = kDepth / 4;
  static_assert(kChunks == 32 && kProducerThreads == 4 * 32);
  const int warp = warp_index(), lane = lane_index();
  // Row warp + 4 i; rows repeat in the swizzle after eight.
  const uint32_t offsets[2] = {Gathered{0}.chunk(warp, lane), Gathered{0}.chunk(warp + 4, lane)};
  Position at;
  AddTiles tiles(a);
  while (tiles.next()) {
    const char* weight =
        reinterpret_cast<const char*>(a.weight) + static_cast<int64_t>(tiles.channels) * kTileWidth * 2 + lane * 16;
    // Lane i asks for the feature of row warp + 4 i, two steps ahead; -1 behind the end.
    const auto ask = [&](int step) {
      const int place = step * kDepth + warp + 4 * lane;
      return lane < kCopies && place < tiles.count ? a.feature(tiles.block, tiles.count, place) : -1;
    };
    int feature = ask(tiles.first_step), next = ask(tiles.first_step + 1);
#pragma unroll 1
    for (int step = tiles.first_step; step < tiles.end_step; ++step) {
      wait(pipeline.empty(at.slot), at.parity ^ 1);
      const uint32_t full = pipeline.full(at.slot);
      if (threadIdx.x == 0) {
        arrive_expecting(full, kBoxedBytes);
#pragma unroll
        for (int half = 0; half < kTokens / kRowElements; ++half) {
          copy_box(pipeline.boxed(at.slot) + half * kDepth * kSwizzleRow, &a.boxed, full, half * kRowElements,
                   step * kDepth, 0, tiles.block);
        }
      }
      const uint32_t to = pipeline.gathered(at.slot);
#pragma unroll
      for (int i = 0; i < kCopies; ++i) {
        const int row = __shfl_sync(0xffffffffu, feature, i);
        copy_16(to + offsets[i % 2] + i / 2 * kSwizzlePattern,
                weight + static_cast<uint64_t>(static_cast<uint32_t>(max(row, 0))) * a.weight_row_bytes, row >= 0);
      }
      arrive_after_copies(full);
      feature = next;
      next = ask(step + 2);
      at.advance();
    }
  }
}

/// Waits for a stage; gathered rows were written as ordinary stores are.
__device__ void wait_stage(const Pipeline& pipeline, const Position& at) {
  wait(pipeline.full(at.slot), at.parity);
  fence_async_proxy();
}
/// Lets a stage go whose products are complete.
__device__ void release(const Pipeline& pipeline, int stage) {
  if (lane_index() == 0) arrive(pipeline.empty(stage));
}

/// Of eight bf16 each.
__device__ uint4 difference_of(uint4 fresh, uint4 old) {
  const uint32_t words[4] = {fresh.x, fresh.y, fresh.z, fresh.w}, known[4] = {old.x, old.y, old.z, old.w};
  uint32_t difference[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 now = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&words[i]));
    const float2 before = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&known[i]));
    difference[i] = pack_bf16(now.x - before.x, now.y - before.y);
  }
  return make_uint4(difference[0], difference[1], difference[2], difference[3]);
}

/// Of 64 places of a block's list, from first_place on, and its tokens: activation(sums + bias) goes into the cache,
/// and its difference from what was there into the workspace.
template <Activation kActivation>
__device__ void renew_rows(const Arguments& a, const RenewTiles& tile, int first_place,
                           const float (&sums)[kTokens / 2]) {
  const int lane = lane_index(), warp = static_cast<int>(threadIdx.x) / 32 % 4;
  const int batch = a.batch(tile.block), first_row = a.first_row(tile.block);
  __nv_bfloat16* cache = a.activations + batch * a.activation_batch_stride + first_row;
  __nv_bfloat16* differences = a.differences + static_cast<int64_t>(tile.block) * a.kept_rows * kTokens;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int place = first_place + warp * 16 + lane / 4 + 8 * r;
    const bool kept = place < tile.count;
    const int feature = kept ? a.feature(tile.block, tile.count, place) : 0;
    const float bias = kept && a.bias != nullptr ? load_any(a.bias, a.bias_dtype, feature) : 0.0f;
    __nv_bfloat16* row = cache + feature * a.activation_stride;
    uint4 old[kTokens / 32];
#pragma unroll
    for (int i = 0; i < kTokens / 32; ++i) {
      const int token = (4 * i + lane % 4) * 8;
      old[i] = kept && first_row + token < a.rows ? *reinterpret_cast<const uint4*>(row + token) : uint4{};
    }
#pragma unroll
    for (int i = 0; i < kTokens / 32; ++i) {
      const int token = (4 * i + lane % 4) * 8;
      uint32_t words[4];
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const int value = 4 * (4 * i + n) + 2 * r;
        words[n] = pack_bf16(activate<kActivation>(sums[value] + bias), activate<kActivation>(sums[value + 1] + bias));
      }
      transpose_quad(words, lane);
      const uint4 fresh = make_uint4(words[0], words[1], words[2], words[3]);
      const bool exists = kept && first_row + token < a.rows;
      if (exists) *reinterpret_cast<uint4*>(row + token) = fresh;
      // Zeros for places past the list and tokens past the end: they are multiplied, too.
      *reinterpret_cast<uint4*>(differences + static_cast<int64_t>(place) * kTokens + token) =
          exists ? difference_of(fresh, old[i]) : uint4{};
    }
  }
}

template <Activation kActivation>
__device__ void compute_renew(const Arguments& a, const Pipeline& pipeline, int warpgroup) {
  using Features = SharedMatrix<kTileWidth, kDepth>;
  using Tokens = SharedMatrix<kTokens, kDepth>;
  constexpr int kWarpgroupFeatures = kTileWidth / kConsumers;
  static_assert(kWarpgroupFeatures == 128);
  Position at;
  RenewTiles tiles(a);
  while (tiles.next()) {
    float low[kTokens / 2], high[kTokens / 2];  // sums of the first 64 features and the others
#pragma unroll
    for (int i = 0; i < kTokens / 2; ++i) low[i] = high[i] = 0.0f;
    int previous = -1;
#pragma unroll 1
    for (int step = 0; step < a.steps; ++step) {
      wait_stage(pipeline, at);
      const uint64_t tokens = Tokens{pipeline.boxed(at.slot)}.depth_along_rows(0);
      const Features gathered{pipeline.gathered(at.slot)};
      const uint64_t first = gathered.depth_along_rows(warpgroup * kWarpgroupFeatures);
      const uint64_t second = gathered.depth_along_rows(warpgroup * kWarpgroupFeatures + 64);
      fence_products();
#pragma unroll
      for (int i = 0; i < kDepth / 16; ++i) {
        Wgmma<kTokens>::shared_shared(low, first + Features::depth_along_rows_step(i),
                                      tokens + Tokens::depth_along_rows_step(i), 1);
      }
#pragma unroll
      for (int i = 0; i < kDepth / 16; ++i) {
        Wgmma<kTokens>::shared_shared(high, second + Features::depth_along_rows_step(i),
                                      tokens + Tokens::depth_along_rows_step(i), 1);
      }
      commit_products();
      // The products of the step before are complete while these run.
      wait_products<1>();
      if (previous >= 0) release(pipeline, previous);
      previous = at.slot;
      at.advance();
    }
    wait_products<0>();
    release(pipeline, previous);
    const int first_place = tiles.range * kTileWidth + warpgroup * kWarpgroupFeatures;
    renew_rows<kActivation>(a, tiles, first_place, low);
    renew_rows<kActivation>(a, tiles, first_place + 64, high);
  }
}

/// Stores this block's part of a tile; in the block that comes last, adds up all parts in their order. Returns whether
/// this is that block.
__device__ bool join_parts(const Arguments& a, const Pipeline& pipeline, const AddTiles& tiles, float (&sums)[128]) {
  constexpr int kWords = 128 / 4, kComputing = kConsumers * 128, kBarrier = 1;
  const int thread = static_cast<int>(threadIdx.x) - kProducerThreads;
  float4* parts = a.partial_sums + static_cast<int64_t>(tiles.left_over) * a.parts * kWords * kComputing;
  float4* mine = parts + static_cast<int64_t>(tiles.part) * kWords * kComputing + thread;
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    mine[i * kComputing] = make_float4(sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]);
  }
  __threadfence();
  join_barrier(kBarrier, kComputing);
  if (thread == 0) *pipeline.word() = atomicAdd(a.arrivals + tiles.left_over, 1);
  join_barrier(kBarrier, kComputing);
  if (*pipeline.word() != a.parts - 1) return false;
  __threadfence();
#pragma unroll
  for (int i = 0; i < 128; ++i) sums[i] = 0.0f;
#pragma unroll 1
  for (int part = 0; part < a.parts; ++part) {
    const float4* theirs = parts + static_cast<int64_t>(part) * kWords * kComputing + thread;
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      const float4 values = __ldcg(theirs + i * kComputing);
      sums[4 * i] += values.x;
      sums[4 * i + 1] += values.y;
      sums[4 * i + 2] += values.z;
      sums[4 * i + 3] += values.w;
    }
  }
  return true;
}

__device__ void compute_add(const Arguments& a, const Pipeline& pipeline, int warpgroup) {
  using Tokens = SharedMatrix<kDepth, kRowElements>;
  using Channels = SharedMatrix<kDepth, kTileWidth>;
  Position at;
  AddTiles tiles(a);
  while (tiles.next()) {
    if (tiles.count == 0) continue;
    float sums[kTileWidth / 2];
#pragma unroll
    for (int i = 0; i < kTileWidth / 2; ++i) sums[i] = 0.0f;
    int previous = -1;
#pragma unroll 1
    for (int step = tiles.first_step; step < tiles.end_step; ++step) {
      wait_stage(pipeline, at);
      const uint64_t tokens = Tokens{pipeline.boxed(at.slot) + warpgroup * Tokens::kBlockBytes}.depth_down_columns();
      const uint64_t channels = Channels{pipeline.gathered(at.slot)}.depth_down_columns();
      fence_products();
#pragma unroll
      for (int i = 0; i < kDepth / 16; ++i) {
        Wgmma<kTileWidth>::shared_shared_transposed(sums, tokens + Tokens::depth_down_columns_step(i),
                                                    channels + Channels::depth_down_columns_step(i), 1);
      }
      commit_products();
      wait_products<1>();
      if (previous >= 0) release(pipeline, previous);
      previous = at.slot;
      at.advance();
    }
    wait_products<0>();
    if (previous >= 0) release(pipeline, previous);
    if (tiles.left_over >= 0 && a.parts > 1 && !join_parts(a, pipeline, tiles, sums)) continue;
    HeadRowsOut out = a.out;
    out.data += tiles.channels * kTileWidth;
    const OutRows rows(out, a.batch(tiles.block), 0, a.first_row(tiles.block) + warpgroup * 64, a.rows);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const auto known = rows.load<kTileWidth>(out.data, out.strides, r);
      rows.write_sum<kTileWidth>(sums, r, 1.0f, known, 1.0f);
    }
  }
}

template <bool kRenew, Activation kActivation>
__global__ void __launch_bounds__(kThreads, 1) column_mlp(const __grid_constant__ Arguments a) {
  extern __shared__ unsigned char shared[];
  const Pipeline pipeline(shared);
  if (threadIdx.x == 0) {
    pipeline.init();
    prefetch_map(&a.boxed);
  }
  if constexpr (kRenew) {
    const int index = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (index < a.blocks * a.channel_tiles - a.whole_tiles) a.arrivals[index] = 0;
  }
  __syncthreads();
  const int warpgroup = warpgroup_index();
  if (warpgroup == 0) {
    shrink_registers<kProducerRegisters>();
    if constexpr (kRenew) {
      bring_renew(a, pipeline);
    } else {
      bring_add(a, pipeline);
    }
  } else {
    grow_registers<kConsumerRegisters>();
    if constexpr (kRenew) {
      compute_renew<kActivation>(a, pipeline, warpgroup - 1);
    } else {
      compute_add(a, pipeline, warpgroup - 1);
    }
  }
}

using Kernel = void (*)(Arguments);
Kernel renew_with(Activation activation) {
  switch (activation) {
    case Activation::kGeluTanh: return column_mlp<true, Activation::kGeluTanh>;
    case Activation::kSilu: return column_mlp<true, Activation::kSilu>;
    default: return nullptr;
  }
}

void launch(cudaStream_t stream, Kernel kernel, int blocks, const Arguments& a) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kSharedBytes)),
        "column_mlp: shared memory");
  kernel<<<blocks, kThreads, kSharedBytes, stream>>>(a);
  check_launch("column_mlp");
}

/// How many tiles each block of the grid takes whole, and what becomes of the others.
struct Split {
  int whole_tiles, left_over, parts;
};
Split split_tiles(int tiles, int multiprocessors) {
  Split split{};
  split.whole_tiles = tiles / multiprocessors * multiprocessors;
  split.left_over = tiles - split.whole_tiles;
  split.parts = split.left_over == 0 ? 1 : std::clamp(multiprocessors / split.left_over, 1, kMaxParts);
  return split;
}

struct Workspace {
  int64_t kept_rows, blocks_at_once;
  int64_t differences_bytes, partial_bytes, arrival_bytes;

  Workspace(const DeviceProperties& device, const ColumnMlpParams& p) {
    const int64_t blocks = p.batch * ceil_div(p.rows, kMlpBlock);
    // Any block may keep every feature.
    kept_rows = round_up(p.features, kTileWidth);
    const int64_t block_bytes = kept_rows * kTokens * 2;
    blocks_at_once = std::clamp<int64_t>(kDifferenceBytes / block_bytes, 1, blocks);
    differences_bytes = blocks_at_once * block_bytes;
    partial_bytes = int64_t{device.multiprocessors} * kTokens * kTileWidth * 4;
    arrival_bytes = round_up(int64_t{device.multiprocessors} * 4, 256);
  }
};

}  // namespace

bool takes(const DeviceProperties& device, const ColumnMlpParams& p) {
  constexpr size_t kElement = 2, kBytes = 16;
  const int64_t limit = int64_t{1} << 31;
  return device.major == kHopperMajor && renew_with(p.activation) != nullptr && p.block_rows == kMlpBlock &&
         p.x.dtype == DType::kBF16 && p.weight1.dtype == DType::kBF16 && p.weight2.dtype == DType::kBF16 &&
         p.channels > 0 && p.channels % kDepth == 0 && p.out_channels > 0 && p.out_channels % kTileWidth == 0 &&
         is_aligned(p.x.data, kElement, kBytes, p.x_row_stride, p.batch == 1 ? 0 : p.x_batch_stride) &&
         is_aligned(p.weight1.data, kElement, kBytes, p.weight1_row_stride) &&
         is_aligned(p.weight2.data, kElement, kBytes, p.weight2_row_stride) && p.activation_row_stride == 1 &&
         is_aligned(p.activations.data, kElement, kBytes, p.activation_feature_stride, p.activation_batch_stride) &&
         p.activation_feature_stride >= round_up(p.rows, 8) && is_aligned(p.out.data, kElement, kBytes) &&
         p.features * p.weight1_row_stride < limit && p.features * p.weight2_row_stride < limit &&
         p.batch * ceil_div(p.rows, kMlpBlock) < (1 << 20);
}

int64_t column_mlp_workspace_bytes(const DeviceProperties& device, const ColumnMlpParams& params) {
  const Workspace space(device, params);
  return space.differences_bytes + space.partial_bytes + space.arrival_bytes;
}

void launch_column_mlp(cudaStream_t stream, const DeviceProperties& device, const ColumnMlpParams& params,
                       void* workspace) {
  const Workspace space(device, params);
  auto* memory = static_cast<char*>(workspace);
  Arguments a{};
  a.capacity = params.capacity;
  a.features = static_cast<int>(params.features);
  a.blocks_per_sample = static_cast<int>(ceil_div(params.rows, kMlpBlock));
  a.rows = static_cast<int>(params.rows);
  a.steps = static_cast<int>(params.channels / kDepth);
  a.bias = params.bias1.data;
  a.bias_dtype = params.bias1.dtype;
  a.activations = static_cast<__nv_bfloat16*>(params.activations.data);
  a.activation_batch_stride = params.activation_batch_stride;
  a.activation_stride = params.activation_feature_stride;
  a.differences = reinterpret_cast<__nv_bfloat16*>(memory);
  a.kept_rows = space.kept_rows;
  a.out = {static_cast<__nv_bfloat16*>(params.out.data),
           {params.rows * params.out_channels, params.out_channels, 0},
           1,
           static_cast<int>(params.rows)};
  a.channel_tiles = static_cast<int>(params.out_channels / kTileWidth);
  a.partial_sums = reinterpret_cast<float4*>(memory + space.differences_bytes);
  a.arrivals = reinterpret_cast<int*>(memory + space.differences_bytes + space.partial_bytes);
  const CUtensorMap x = make_head_map(params.x.data, {params.x_batch_stride, params.x_row_stride, params.x_row_stride},
                                      params.batch, params.rows, 1, params.channels, kTokens);
  const int64_t blocks = params.batch * a.blocks_per_sample;
  for (int64_t first = 0; first < blocks; first += space.blocks_at_once) {
    a.first_block = static_cast<int>(first);
    a.blocks = static_cast<int>(std::min(space.blocks_at_once, blocks - first));
    a.indices = params.indices + first * params.capacity;
    a.counts = params.counts + first;
    const int tiles = a.blocks * a.channel_tiles;
    const Split split = split_tiles(tiles, device.multiprocessors);
    a.whole_tiles = split.whole_tiles;
    a.parts = split.parts;

    a.boxed = x;
    a.weight = static_cast<const __nv_bfloat16*>(params.weight1.data);
    a.weight_row_bytes = static_cast<uint32_t>(params.weight1_row_stride * 2);
    const int renew_tiles = a.blocks * static_cast<int>(a.kept_rows / kTileWidth);
    launch(stream, renew_with(params.activation), std::min(renew_tiles, device.multiprocessors), a);

    a.boxed = make_head_map(a.differences, {a.kept_rows * kTokens, kTokens, kTokens}, a.blocks, a.kept_rows, 1, kTokens,
                            kDepth);
    a.weight = static_cast<const __nv_bfloat16*>(params.weight2.data);
    a.weight_row_bytes = static_cast<uint32_t>(params.weight2_row_stride * 2);
    const int units = split.whole_tiles > 0 ? device.multiprocessors : split.left_over * split.parts;
    launch(stream, column_mlp<false, Activation::kNone>, units, a);
  }
}

}  // namespace chipmunk::cuda::sm90
