#include <algorithm>

#include "cuda/activations.cuh"
#include "cuda/any_type.cuh"
#include "cuda/cuda_error.h"
#include "cuda/launch.h"
#include "cuda/overlap.cuh"
#include "cuda/sm90/attention_rows.cuh"
#include "cuda/sm90/column_mlp.h"
#include "cuda/sm90/column_mlp_producer.cuh"
#include "cuda/sm90/tensor_map.h"

// Two kernels, each a matmul of which one operand's rows are gathered:
//   renew: features x tokens = W1[kept] x^T; activations and the cache change places, their differences stay behind
//   add:   tokens x channels = differences^T W2[kept], added to the cached output
// A block has a warpgroup that brings operands and two that compute; it takes tile after tile.
namespace chipmunk::cuda::sm90 {
namespace {

using namespace mlp;

/// Differences of more token blocks than this holds are computed in several rounds.
constexpr int64_t kDifferenceBytes = int64_t{512} << 20;

/// Steps of a tile in which threads ask for what they want at its end: biases once features are there, and outputs once
/// those have come to L2.
constexpr int kBiasStep = 4, kAskStep = 16;

/// Waits for a stage; gathered rows were written as ordinary stores are.
__device__ void wait_stage(const Pipeline& pipeline, const Position& at) {
  wait(pipeline.full(at.slot), at.parity);
  fence_async_proxy();
}
/// Lets a stage go whose products are complete.
__device__ void release(const Pipeline& pipeline, int stage) {
  if (lane_index() == 0) arrive(pipeline.empty(stage));
}

/// Of eight bf16 each, rounded once.
__device__ uint4 difference_of(uint4 fresh, uint4 old) {
  const auto difference = [](uint32_t a, uint32_t b) {
    const __nv_bfloat162 result =
        __hsub2(*reinterpret_cast<const __nv_bfloat162*>(&a), *reinterpret_cast<const __nv_bfloat162*>(&b));
    return *reinterpret_cast<const uint32_t*>(&result);
  };
  return make_uint4(difference(fresh.x, old.x), difference(fresh.y, old.y), difference(fresh.z, old.z),
                    difference(fresh.w, old.w));
}

/// Features that a warp renews: kRows of each half of its warpgroup's.
constexpr int kHalves = 2, kHalfFeatures = 64;
static_assert(kConsumers * kHalves * kHalfFeatures == kTileWidth && kHalfFeatures == 4 * Exchange::kRows);

/// What a warp renews of a tile: 16 kept features of each half of its warpgroup's, and all tokens.
class RenewedRows {
 public:
  /// The numbers of the features are asked for.
  __device__ RenewedRows(const Arguments& a, const RenewTiles& tile, int warpgroup) : a_(a) {
    const int block = tile.block, first_token = a.first_row(block) + Exchange::column(0);
    const int first_place =
        tile.first_place + warpgroup * kHalves * kHalfFeatures + warp_index() % 4 * Exchange::kRows + Exchange::row(0);
    places_ = tile.count - first_place;
    tokens_ = a.rows - first_token;
    cache_ = a.activations + a.batch(block) * a.activation_batch_stride + first_token;
    differences_ = a.differences + (block * a.kept_rows + first_place) * kTokens + Exchange::column(0);
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
#pragma unroll
      for (int i = 0; i < kRowsOfLane; ++i) {
        // Of a place past the list's end, the last one.
        const int at = min(first_place + place(half, i * Exchange::kRowSteps), tile.count - 1);
        features_[half][i] = a.feature(block, tile.count, at);
      }
    }
  }

  /// Asks for the biases of the rows that a lane has of products' results; long after the features.
  __device__ void ask_biases() {
    static_assert(kRowsOfLane == 4);
    const int lane = lane_index(), from = lane / 4 % 4 * 8;
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int upper = __shfl_sync(0xffffffffu, features_[half][2 * r], from);
        const int lower = __shfl_sync(0xffffffffu, features_[half][2 * r + 1], from);
        biases_[half][r] = a_.bias == nullptr ? 0.0f : load_any(a_.bias, a_.bias_dtype, lane < 16 ? upper : lower);
      }
    }
  }

  /// What is in the cache, a lane's chunks of a half.
  struct Old {
    uint4 chunks[Exchange::kSteps];
  };

  /// Brings activation(sums + bias) into the order of memory, and meanwhile asks for what is old.
  template <Activation kActivation>
  __device__ Old activate(const Exchange& exchange, int half, const float (&sums)[kTokens / 2]) const {
    Old old;
    __syncwarp();
#pragma unroll
    for (int block = 0; block < kTokens / 8; block += 2) {
      // Once some sums have made room.
      if (block == kTokens / 16) old = ask_old(half);
      uint32_t words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* pair = sums + 4 * block + 2 * i;
        const float bias = biases_[half][i % 2];
        words[i] = pack_bf16(cuda::activate<kActivation>(pair[0] + bias), cuda::activate<kActivation>(pair[1] + bias));
      }
      store_matrices(exchange.matrices(block), words);
    }
    __syncwarp();
    return old;
  }

  /// Writes them to the cache, and their difference from what was there to the workspace.
  __device__ void write(const Exchange& exchange, int half, const Old& old) const {
#pragma unroll
    for (int i = 0; i < Exchange::kSteps; ++i) {
      const uint4 fresh = load_shared_16(exchange.chunk(i));
      const bool is_there = exists(half, i);
      if (is_there) *reinterpret_cast<uint4*>(cached(half, i)) = fresh;
      // Zeros for places past the list and tokens past the end: they are multiplied, too.
      *reinterpret_cast<uint4*>(differences_ + place(half, i) * kTokens + token(i)) =
          is_there ? difference_of(fresh, old.chunks[i]) : uint4{};
    }
  }

 private:
  static_assert(kExchangeColumns == kTokens);
  static constexpr int kRowsOfLane = Exchange::kSteps / Exchange::kRowSteps;  // of a half

  __device__ Old ask_old(int half) const {
    Old old;
#pragma unroll
    for (int i = 0; i < Exchange::kSteps; ++i) {
      old.chunks[i] = uint4{};
      if (exists(half, i)) old.chunks[i] = *reinterpret_cast<const uint4*>(cached(half, i));
    }
    return old;
  }
  // Relative to the lane's first place in the block's list, and to its first token.
  __device__ static constexpr int place(int half, int step) { return half * kHalfFeatures + Exchange::row_step(step); }
  __device__ static constexpr int token(int step) { return Exchange::column_step(step); }
  __device__ bool exists(int half, int step) const { return place(half, step) < places_ && token(step) < tokens_; }
  __device__ __nv_bfloat16* cached(int half, int step) const {
    return cache_ + features_[half][step / Exchange::kRowSteps] * a_.activation_stride + token(step);
  }

  const Arguments& a_;
  int places_, tokens_;  // from the lane's first ones on
  __nv_bfloat16 *cache_, *differences_;
  int features_[kHalves][kRowsOfLane];
  float biases_[kHalves][2];
};

/// The products of a tile with kProducts x 64 features of this warpgroup.
template <int kProducts>
__device__ void multiply_renew(const Arguments& a, const Pipeline& pipeline, int first_row, Position& at,
                               RenewedRows& rows, float (&low)[kTokens / 2], float (&high)[kTokens / 2]) {
  using Features = SharedMatrix<kTileWidth, kDepth>;
  using Tokens = SharedMatrix<kTokens, kDepth>;
#pragma unroll
  for (int i = 0; i < kTokens / 2; ++i) low[i] = high[i] = 0.0f;
  const int bias_step = min(kBiasStep, a.steps - 1);
#pragma unroll 1
  for (int step = 0; step < a.steps; ++step) {
    wait_stage(pipeline, at);
    const uint64_t tokens = Tokens{pipeline.boxed(at.slot)}.depth_along_rows(0);
    const Features gathered{pipeline.gathered(at.slot)};
    const uint64_t first = gathered.depth_along_rows(first_row), second = gathered.depth_along_rows(first_row + 64);
    fence_products();
    if constexpr (kProducts > 0) {
#pragma unroll
      for (int i = 0; i < kDepth / 16; ++i) {
        Wgmma<kTokens>::shared_shared(low, first + Features::depth_along_rows_step(i),
                                      tokens + Tokens::depth_along_rows_step(i), 1);
      }
    }
    if constexpr (kProducts > 1) {
#pragma unroll
      for (int i = 0; i < kDepth / 16; ++i) {
        Wgmma<kTokens>::shared_shared(high, second + Features::depth_along_rows_step(i),
                                      tokens + Tokens::depth_along_rows_step(i), 1);
      }
    }
    commit_products();
    if (step == bias_step) rows.ask_biases();
    // The other warpgroup's products run meanwhile; a stage that is let go sooner is full again sooner.
    wait_products<0>();
    release(pipeline, at.slot);
    at.advance();
  }
}

template <Activation kActivation>
__device__ void compute_renew(const Arguments& a, const Pipeline& pipeline, int warpgroup) {
  const int first_row = warpgroup * kHalves * kHalfFeatures;
  const Exchange exchange(pipeline.exchange());
  Position at;
  RenewTiles tiles(a);
  while (tiles.next()) {
    float low[kTokens / 2], high[kTokens / 2];  // sums of the first half's features and the second one's
    const int places = tiles.places - first_row;
    RenewedRows rows(a, tiles, warpgroup);
    if (places > kHalfFeatures) {
      multiply_renew<2>(a, pipeline, first_row, at, rows, low, high);
    } else if (places > 0) {
      multiply_renew<1>(a, pipeline, first_row, at, rows, low, high);
    } else {
      multiply_renew<0>(a, pipeline, first_row, at, rows, low, high);
      continue;
    }
    rows.write(exchange, 0, rows.activate<kActivation>(exchange, 0, low));
    if (places > kHalfFeatures) rows.write(exchange, 1, rows.activate<kActivation>(exchange, 1, high));
  }
}

template <int kWidth>
__device__ void compute_add_tile(const Arguments& a, const Pipeline& pipeline, const AddTiles& tile, int warpgroup,
                                 Position& at) {
  using Tokens = SharedMatrix<kDepth, kRowElements>;
  using Channels = SharedMatrix<kDepth, kWidth>;
  constexpr int kColumns = kWidth < kExchangeColumns ? kWidth : kExchangeColumns;
  using Exchange = WarpExchange<kColumns>;
  constexpr int kSteps = Exchange::kSteps;
  const Exchange exchange(pipeline.exchange());
  const int first_row = a.first_row(tile.block) + warpgroup * 64 + warp_index() % 4 * Exchange::kRows;
  __nv_bfloat16* out =
      a.out.data + a.batch(tile.block) * a.out.strides.batch + first_row * a.out.strides.token + tile.first_channel;
  const auto exists = [&](int i) { return first_row + Exchange::row(i) < a.rows; };
  const auto at_step = [&](int i) { return Exchange::row(i) * a.out.strides.token + Exchange::column(i); };
  const int ask_step = min(kAskStep, tile.steps - 1);
  float sums[kWidth / 2];
#pragma unroll
  for (int i = 0; i < kWidth / 2; ++i) sums[i] = 0.0f;
#pragma unroll 1
  for (int step = 0; step < tile.steps; ++step) {
    wait_stage(pipeline, at);
    const uint64_t tokens = Tokens{pipeline.boxed(at.slot) + warpgroup * Tokens::kBlockBytes}.depth_down_columns();
    const uint64_t channels = Channels{pipeline.gathered(at.slot)}.depth_down_columns();
    fence_products();
#pragma unroll
    for (int i = 0; i < kDepth / 16; ++i) {
      Wgmma<kWidth>::shared_shared_transposed(sums, tokens + Tokens::depth_down_columns_step(i),
                                              channels + Channels::depth_down_columns_step(i), 1);
    }
    commit_products();
    if (step == ask_step) {
#pragma unroll
      for (int i = 0; i < kSteps; ++i) copy_16(exchange.chunk(i), out + at_step(i), exists(i));
    }
    wait_products<0>();
    release(pipeline, at.slot);
    at.advance();
  }
  // What a warp has room for at a time; the first part is there, the next one comes meanwhile.
  constexpr int kParts = kWidth / kColumns;
  uint4 next[kParts > 1 ? kSteps : 1];
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    if (part == 0) wait_copies();
    __syncwarp();
    if (part + 1 < kParts) {
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        next[i] = exists(i) ? *reinterpret_cast<const uint4*>(out + at_step(i) + (part + 1) * kColumns) : uint4{};
      }
    }
#pragma unroll
    for (int block = 0; block < kColumns / 8; block += 2) {
      uint32_t words[4];
      load_matrices(exchange.matrices(block), words);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* pair = sums + part * (kColumns / 2) + 4 * block + 2 * i;
        const float2 known = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&words[i]));
        words[i] = pack_bf16(known.x + pair[0], known.y + pair[1]);
      }
      store_matrices(exchange.matrices(block), words);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const uint4 chunk = load_shared_16(exchange.chunk(i));
      if (part + 1 < kParts) store_shared_16(exchange.chunk(i), next[i]);
      if (exists(i)) *reinterpret_cast<uint4*>(out + at_step(i) + part * kColumns) = chunk;
    }
  }
  __syncwarp();
}

__device__ void compute_add(const Arguments& a, const Pipeline& pipeline, int warpgroup) {
  Position at;
  AddTiles tiles(a);
  while (tiles.next()) {
    if (tiles.is_whole) {
      compute_add_tile<kTileWidth>(a, pipeline, tiles, warpgroup, at);
    } else {
      compute_add_tile<kQuarterWidth>(a, pipeline, tiles, warpgroup, at);
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
  __syncthreads();
  wait_for_previous_kernels();
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
  launch_overlapping(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), kSharedBytes, stream, "column_mlp",
                     a);
}

struct Workspace {
  int64_t kept_rows, blocks_at_once;
  int64_t differences_bytes;

  explicit Workspace(const ColumnMlpParams& p) {
    const int64_t blocks = p.batch * ceil_div(p.rows, kMlpBlock);
    // Any block may keep every feature.
    kept_rows = round_up(p.features, kTileWidth);
    const int64_t block_bytes = kept_rows * kTokens * 2;
    blocks_at_once = std::clamp<int64_t>(kDifferenceBytes / block_bytes, 1, blocks);
    differences_bytes = blocks_at_once * block_bytes;
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

int64_t column_mlp_workspace_bytes(const ColumnMlpParams& params) { return Workspace(params).differences_bytes; }

void launch_column_mlp(cudaStream_t stream, const DeviceProperties& device, const ColumnMlpParams& params,
                       void* workspace) {
  const Workspace space(params);
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
  a.differences = static_cast<__nv_bfloat16*>(workspace);
  a.kept_rows = space.kept_rows;
  a.out = {static_cast<__nv_bfloat16*>(params.out.data),
           {params.rows * params.out_channels, params.out_channels, 0},
           1,
           static_cast<int>(params.rows)};
  a.channels = static_cast<int>(params.out_channels);
  const CUtensorMap x = make_head_map(params.x.data, {params.x_batch_stride, params.x_row_stride, params.x_row_stride},
                                      params.batch, params.rows, 1, params.channels, kTokens);
  const int64_t blocks = params.batch * a.blocks_per_sample;
  for (int64_t first = 0; first < blocks; first += space.blocks_at_once) {
    a.first_block = static_cast<int>(first);
    a.blocks = static_cast<int>(std::min(space.blocks_at_once, blocks - first));
    a.indices = params.indices + first * params.capacity;
    a.counts = params.counts + first;
    const int sections = ceil_div(a.blocks, kSectionBlocks);
    a.section = ceil_div(a.blocks, sections);

    a.boxed = x;
    a.weight = static_cast<const __nv_bfloat16*>(params.weight1.data);
    a.weight_row_bytes = static_cast<uint32_t>(params.weight1_row_stride * 2);
    launch(stream, renew_with(params.activation), device.multiprocessors, a);

    a.boxed = make_head_map(a.differences, {a.kept_rows * kTokens, kTokens, kTokens}, a.blocks, a.kept_rows, 1, kTokens,
                            kDepth);
    a.weight = static_cast<const __nv_bfloat16*>(params.weight2.data);
    a.weight_row_bytes = static_cast<uint32_t>(params.weight2_row_stride * 2);
    launch(stream, column_mlp<false, Activation::kNone>, device.multiprocessors, a);
  }
}

}  // namespace chipmunk::cuda::sm90
