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

/// The products of a tile with kProducts x 64 features of this warpgroup.
template <int kProducts>
__device__ void multiply_renew(const Arguments& a, const Pipeline& pipeline, int first_row, Position& at,
                               float (&low)[kTokens / 2], float (&high)[kTokens / 2]) {
  using Features = SharedMatrix<kTileWidth, kDepth>;
  using Tokens = SharedMatrix<kTokens, kDepth>;
#pragma unroll
  for (int i = 0; i < kTokens / 2; ++i) low[i] = high[i] = 0.0f;
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
    // The other warpgroup's products run meanwhile; a stage that is let go sooner is full again sooner.
    wait_products<0>();
    release(pipeline, at.slot);
    at.advance();
  }
}

template <Activation kActivation>
__device__ void compute_renew(const Arguments& a, const Pipeline& pipeline, int warpgroup) {
  constexpr int kWarpgroupFeatures = kTileWidth / kConsumers;
  static_assert(kWarpgroupFeatures == 128);
  const int first_row = warpgroup * kWarpgroupFeatures;
  Position at;
  RenewTiles tiles(a);
  while (tiles.next()) {
    float low[kTokens / 2], high[kTokens / 2];  // sums of the first 64 features and the others
    const int places = tiles.places - first_row;
    const int first_place = tiles.first_place + first_row;
    if (places > 64) {
      multiply_renew<2>(a, pipeline, first_row, at, low, high);
      renew_rows<kActivation>(a, tiles, first_place, low);
      renew_rows<kActivation>(a, tiles, first_place + 64, high);
    } else if (places > 0) {
      multiply_renew<1>(a, pipeline, first_row, at, low, high);
      renew_rows<kActivation>(a, tiles, first_place, low);
    } else {
      multiply_renew<0>(a, pipeline, first_row, at, low, high);
    }
  }
}

template <int kWidth>
__device__ void compute_add_tile(const Arguments& a, const Pipeline& pipeline, const AddTiles& tile, int warpgroup,
                                 Position& at) {
  using Tokens = SharedMatrix<kDepth, kRowElements>;
  using Channels = SharedMatrix<kDepth, kWidth>;
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
    wait_products<0>();
    release(pipeline, at.slot);
    at.advance();
  }
  HeadRowsOut out = a.out;
  out.data += tile.first_channel;
  const OutRows rows(out, a.batch(tile.block), 0, a.first_row(tile.block) + warpgroup * 64, a.rows);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    uint32_t known[kWidth / 8];
    rows.load<kWidth>(r, known);
    rows.write_sum<kWidth>(sums, r, 1.0f, known, 1.0f);
  }
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
