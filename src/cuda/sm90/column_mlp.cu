#include <algorithm>

#include "cuda/cuda_error.h"
#include "cuda/launch.h"
#include "cuda/overlap.cuh"
#include "cuda/quantize_rows.h"
#include "cuda/sm90/column_mlp.h"
#include "cuda/sm90/column_mlp_added.cuh"
#include "cuda/sm90/column_mlp_problem.h"
#include "cuda/sm90/column_mlp_renewed.cuh"
#include "cuda/sm90/tensor_map.h"

// Two kernels, each a matmul of which one operand's rows are gathered:
//   renew: features x tokens = W1[kept] x^T; activations and the cache change places, their differences stay behind
//   add:   tokens x channels = differences^T W2[kept], added to the cached output
// A block has a warpgroup that brings operands and two that compute; it takes tile after tile.
namespace chipmunk::cuda::sm90 {
namespace {

using namespace mlp;

static_assert(kDepth == kMlpStepChannels && 2 * kDepth == kMlpF8StepChannels && kTileWidth == kMlpTileChannels);

/// Differences of more token blocks than this holds are computed in several rounds.
constexpr int64_t kDifferenceBytes = int64_t{512} << 20;

/// When threads ask for what they want at a tile's end: biases in a step in which features are there; so many steps
/// before the end, a first row of old activations, or the second half of outputs, and the first half as long before it.
constexpr int kBiasStep = 16, kStepsAhead = 3;
/// Every so many steps, add writes a row of the tile before.
constexpr int kOutRowSteps = 3;

/// Waits for a stage; gathered rows were written as ordinary stores are.
__device__ void wait_stage(const Pipeline& pipeline, const Position& at) {
  wait(pipeline.full(at.slot), at.parity);
  fence_async_proxy();
}
/// Lets a stage go whose products are complete.
__device__ void release(const Pipeline& pipeline, int stage) {
  if (lane_index() == 0) arrive(pipeline.empty(stage));
}

/// Of 32 bytes along the depth.
template <bool kF8>
__device__ void multiply(float (&sums)[kTokens / 2], uint64_t features, uint64_t tokens) {
  if constexpr (kF8) {
    Wgmma<kTokens>::shared_shared_f8(sums, features, tokens, 1);
  } else {
    Wgmma<kTokens>::shared_shared(sums, features, tokens, 1);
  }
}

/// The products of a tile with kProducts x 64 features of this warpgroup; rows of the tile before it change places
/// meanwhile.
template <int kProducts, bool kF8>
__device__ void multiply_renew(const Arguments& a, const Pipeline& pipeline, const RenewTiles& tile, int first_row,
                               Position& at, RenewedRows<kF8>& rows, float (&low)[kTokens / 2],
                               float (&high)[kTokens / 2]) {
  using Features = SharedMatrix<kTileWidth, kDepth>;
  using Tokens = SharedMatrix<kTokens, kDepth>;
#pragma unroll
  for (int i = 0; i < kTokens / 2; ++i) low[i] = high[i] = 0.0f;
  const int bias_step = min(kBiasStep, a.steps - 1), old_step = max(a.steps - kStepsAhead, 0);
  const int row_steps = max(old_step / RenewedRows<kF8>::kRows, 1);
  int row_step = row_steps - 1;
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
        multiply<kF8>(low, first + Features::depth_along_rows_step(i), tokens + Tokens::depth_along_rows_step(i));
      }
    }
    if constexpr (kProducts > 1) {
#pragma unroll
      for (int i = 0; i < kDepth / 16; ++i) {
        multiply<kF8>(high, second + Features::depth_along_rows_step(i), tokens + Tokens::depth_along_rows_step(i));
      }
    }
    commit_products();
    if (step == bias_step) rows.ask_bias_and_scale(tile);
    if (step == row_step) {
      rows.renew_row();
      row_step += row_steps;
    }
    if (step == old_step) {
      rows.renew_rows();
      rows.ask_first_row(tile);
    }
    // The other warpgroup's products run meanwhile; a stage that is let go sooner is full again sooner.
    wait_products<0>();
    release(pipeline, at.slot);
    at.advance();
  }
}

template <Activation kActivation, bool kF8>
__device__ void compute_renew(const Arguments& a, const Pipeline& pipeline, int warpgroup) {
  const int first_row = warpgroup * kHalves * kHalfFeatures;
  Position at;
  RenewTiles tiles(a);
  RenewedRows<kF8> rows(a, Exchange(pipeline.exchange()), warpgroup);
  while (tiles.next()) {
    float low[kTokens / 2], high[kTokens / 2];  // sums of the first half's features and the second one's
    const int places = tiles.places - first_row;
    rows.ask_feature(tiles);
    if (places > kHalfFeatures) {
      multiply_renew<2>(a, pipeline, tiles, first_row, at, rows, low, high);
    } else if (places > 0) {
      multiply_renew<1>(a, pipeline, tiles, first_row, at, rows, low, high);
    } else {
      multiply_renew<0>(a, pipeline, tiles, first_row, at, rows, low, high);
      continue;
    }
    rows.template take<kActivation>(tiles, places > kHalfFeatures, low, high);
  }
  rows.renew_last_rows();
}

/// The products of a tile; in each step, meanwhile(step).
template <int kWidth, class Meanwhile>
__device__ void multiply_add(const Pipeline& pipeline, const AddTiles& tile, int warpgroup, Position& at,
                             float (&sums)[kWidth / 2], const Meanwhile& meanwhile) {
  using Tokens = SharedMatrix<kDepth, kRowElements>;
  using Channels = SharedMatrix<kDepth, kWidth>;
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
    meanwhile(step);
    wait_products<0>();
    release(pipeline, at.slot);
    at.advance();
  }
}

__device__ void compute_add_tile(const Pipeline& pipeline, const AddTiles& tile, int warpgroup, Position& at,
                                 AddedRows& rows) {
  const int second_step = max(tile.steps - kStepsAhead, 0), first_step = max(second_step - kStepsAhead, 0);
  int row_step = kOutRowSteps - 1;
  float sums[kTileWidth / 2];
  multiply_add<kTileWidth>(pipeline, tile, warpgroup, at, sums, [&](int step) {
    if (step == row_step) {
      rows.write_row();
      row_step += kOutRowSteps;
    }
    if (step == first_step) {
      rows.write_rows();
      rows.ask_first_half(tile);
    }
    if (step == second_step) rows.ask_second_half(tile);
  });
  rows.take(tile, sums);
}
__device__ void compute_add_part(const Arguments& a, const Pipeline& pipeline, const AddTiles& tile, int warpgroup,
                                 Position& at) {
  const AddedPart rows(a, pipeline, tile, warpgroup);
  const int ask_step = max(tile.steps - kStepsAhead, 0);
  float sums[kQuarterWidth / 2];
  multiply_add<kQuarterWidth>(pipeline, tile, warpgroup, at, sums, [&](int step) {
    if (step == ask_step) rows.ask();
  });
  rows.add(sums);
}

/// Lets the stages of a tile go, all tokens of which are the other warpgroup's.
__device__ void skip_add_tile(const Pipeline& pipeline, const AddTiles& tile, Position& at) {
#pragma unroll 1
  for (int step = 0; step < tile.steps; ++step) {
    wait(pipeline.full(at.slot), at.parity);
    release(pipeline, at.slot);
    at.advance();
  }
}

__device__ void compute_add(const Arguments& a, const Pipeline& pipeline, int warpgroup) {
  Position at;
  AddTiles tiles(a);
  AddedRows rows(a, Exchange(pipeline.exchange()), warpgroup);
  while (tiles.next()) {
    if (tiles.is_whole) {
      compute_add_tile(pipeline, tiles, warpgroup, at, rows);
      continue;
    }
    rows.write_rows();
    if (tiles.has_half(warpgroup)) {
      compute_add_part(a, pipeline, tiles, warpgroup, at);
    } else {
      skip_add_tile(pipeline, tiles, at);
    }
  }
  rows.write_rows();
}

template <bool kRenew, Activation kActivation, bool kF8>
__global__ void __launch_bounds__(kThreads, 1) column_mlp(const __grid_constant__ Arguments a) {
  extern __shared__ unsigned char shared[];
  const Pipeline pipeline(shared);
  if (threadIdx.x == 0) {
    pipeline.init();
    prefetch_map(&a.boxed);
  }
  __syncthreads();
  if (!kRenew || !a.overlaps_last) wait_for_previous_kernels();
  // Most that come next want a multiprocessor for themselves.
  if constexpr (!kRenew) let_next_kernel_begin();
  const int warpgroup = warpgroup_index();
  if (warpgroup == 0) {
    shrink_registers<Registers<kRenew>::kProducer>();
    if constexpr (kRenew) {
      bring_renew(a, pipeline);
    } else {
      bring_add(a, pipeline);
    }
  } else {
    grow_registers<Registers<kRenew>::kConsumer>();
    if constexpr (kRenew) {
      compute_renew<kActivation, kF8>(a, pipeline, warpgroup - 1);
    } else {
      compute_add(a, pipeline, warpgroup - 1);
    }
  }
  if (kRenew && a.overlaps_last) wait_for_previous_kernels();
}

using Kernel = void (*)(Arguments);
template <bool kF8>
Kernel renew_with(Activation activation) {
  switch (activation) {
    case Activation::kGeluTanh: return column_mlp<true, Activation::kGeluTanh, kF8>;
    case Activation::kSilu: return column_mlp<true, Activation::kSilu, kF8>;
    default: return nullptr;
  }
}
Kernel renew_of(const ColumnMlpParams& p) {
  return p.weight1_scale != nullptr ? renew_with<true>(p.activation) : renew_with<false>(p.activation);
}

void launch(cudaStream_t stream, Kernel kernel, int blocks, const Arguments& a) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kSharedBytes)),
        "column_mlp: shared memory");
  launch_overlapping(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), kSharedBytes, stream, "column_mlp",
                     a);
}

struct Workspace {
  int64_t kept_rows, blocks_at_once;
  int64_t differences_bytes, x_bytes, x_scales_bytes;

  Workspace(const ColumnMlpParams& p, int64_t blocks) {
    // Any block may keep every feature.
    kept_rows = round_up(p.features, kTileWidth);
    const int64_t block_bytes = kept_rows * kTokens * 2;
    blocks_at_once = std::clamp<int64_t>(kDifferenceBytes / block_bytes, 1, blocks);
    differences_bytes = blocks_at_once * block_bytes;
    const bool f8 = p.weight1_scale != nullptr;
    x_bytes = f8 ? round_up(p.batch * p.rows * p.channels, kSwizzlePattern) : 0;
    x_scales_bytes = f8 ? blocks * kTokens * int64_t{sizeof(float)} : 0;
  }
  int64_t bytes() const { return differences_bytes + x_bytes + x_scales_bytes; }
};

CUtensorMap map_of_x(const ColumnMlpParams& p) {
  return make_head_map(p.x.data, {p.x_batch_stride, p.x_row_stride, p.x_row_stride}, p.batch, p.rows, 1, p.channels,
                       kTokens);
}

/// Has x quantised, values and scales [batch, blocks_per_sample * kTokens] of it, for the copy engine.
CUtensorMap quantize_x(cudaStream_t stream, const ColumnMlpProblem& problem, void* values, float* scales) {
  const ColumnMlpParams& p = problem.params;
  const int64_t scale_stride = problem.blocks_per_sample * kMlpBlock;
  launch_quantize_rows(stream, {p.x,
                                {values, DType::kF8E4M3},
                                scales,
                                p.batch,
                                p.rows,
                                p.channels,
                                p.x_batch_stride,
                                p.x_row_stride,
                                scale_stride});
  // Pairs of elements, which the copy engine takes for one of bf16.
  const int64_t pairs = p.channels / 2;
  return make_head_map(values, {p.rows * pairs, pairs, pairs}, p.batch, p.rows, 1, pairs, kTokens);
}

}  // namespace

int64_t column_mlp_workspace_bytes(const ColumnMlpParams* problems, int count) {
  const ColumnMlpProblem problem(problems, count);
  return Workspace(problem.params, problem.blocks()).bytes();
}

void launch_column_mlp(cudaStream_t stream, const DeviceProperties& device, const ColumnMlpParams* problems, int count,
                       void* workspace) {
  const ColumnMlpProblem problem(problems, count);
  const ColumnMlpParams &params = problem.params, &last = problem.last;
  const Workspace space(params, problem.blocks());
  Arguments a{};
  a.capacity = params.capacity;
  a.features = static_cast<int>(params.features);
  a.blocks_per_sample = static_cast<int>(problem.blocks_per_sample);
  a.rows = static_cast<int>(params.rows);
  a.split_blocks = static_cast<int>(problem.split_blocks);
  a.split_row = static_cast<int>(problem.split_row);
  a.steps = static_cast<int>(params.channels / channels_of_step(params));
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
  char* quantized = static_cast<char*>(workspace) + space.differences_bytes;
  auto* x_scales = reinterpret_cast<float*>(quantized + space.x_bytes);
  a.x_scales = x_scales;
  const CUtensorMap x =
      params.weight1_scale != nullptr ? quantize_x(stream, problem, quantized, x_scales) : map_of_x(params);
  const size_t weight1_element = size_of(params.weight1.dtype);
  const auto first_weight = [](const ColumnMlpParams& p) {
    return GatheredWeight{static_cast<const char*>(p.weight1.data), p.weight1_scale, p.bias1.data};
  };
  const auto second_weight = [](const ColumnMlpParams& p) {
    return GatheredWeight{static_cast<const char*>(p.weight2.data), nullptr, nullptr};
  };
  const int64_t blocks = problem.blocks();
  for (int64_t first = 0; first < blocks; first += space.blocks_at_once) {
    // Quantised rows of x are made by a kernel of this launch.
    a.overlaps_last = params.overlaps_last && first == 0 && params.weight1_scale == nullptr;
    a.first_block = static_cast<int>(first);
    a.blocks = static_cast<int>(std::min(space.blocks_at_once, blocks - first));
    a.indices = params.indices + first * params.capacity;
    a.counts = params.counts + first;
    const int sections = ceil_div(a.blocks, kSectionBlocks);
    a.section = ceil_div(a.blocks, sections);

    a.boxed = x;
    a.weights[0] = first_weight(params);
    a.weights[1] = first_weight(last);
    a.weight_row_bytes = static_cast<uint32_t>(params.weight1_row_stride * static_cast<int64_t>(weight1_element));
    launch(stream, renew_of(params), device.multiprocessors, a);

    a.boxed = make_head_map(a.differences, {a.kept_rows * kTokens, kTokens, kTokens}, a.blocks, a.kept_rows, 1, kTokens,
                            kDepth);
    a.weights[0] = second_weight(params);
    a.weights[1] = second_weight(last);
    a.weight_row_bytes = static_cast<uint32_t>(params.weight2_row_stride * 2);
    launch(stream, column_mlp<false, Activation::kNone, false>, device.multiprocessors, a);
  }
}

}  // namespace chipmunk::cuda::sm90
