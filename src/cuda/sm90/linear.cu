#include <algorithm>
#include <array>

#include "cuda/cuda_error.h"
#include "cuda/launch.h"
#include "cuda/overlap.cuh"
#include "cuda/sm90/linear.h"
#include "cuda/sm90/linear_pipeline.cuh"
#include "cuda/sm90/tensor_map.h"
#include "cuda/sm90/warpgroup.cuh"
#include "cuda/sm90/wgmma.cuh"

// out = epilogue(x weight^T), for one linear or two of the same depth. The two blocks of a cluster compute a unit: 128
// rows each, of the same columns, whose weights each brings half of for both. A block has a warp that brings operands,
// two warpgroups that compute 64 rows each, and three warps that do the rest to their products, and write them, while
// they go on; clusters take unit after unit.
namespace chipmunk::cuda::sm90 {
namespace linear {
namespace {

/// A warp that brings operands and warps that write are the first warpgroup.
constexpr int kWriters = 3;
constexpr int kThreads = (1 + kConsumers) * 128;
constexpr int kConsumerRegisters = 192, kOtherRegisters = 120;
// A warpgroup that asks for registers that the block did not start with waits forever.
static_assert(kConsumers * kConsumerRegisters + kOtherRegisters <= 65536 / kThreads / 8 * 8 * (1 + kConsumers));
/// Step of a unit in which the second part of the one before it goes to the writers, who have written the first one by
/// then.
constexpr int kSecondPartStep = 12;

/// The weights' columns of a unit that each block brings, for both.
template <int kWidth>
constexpr int kShare = kWidth / kClusterBlocks;

/// Brings a unit's operands, kColumns of its columns; backwards: from the depth's end on.
template <int kWidth, int kColumns>
__device__ void bring_unit(const Arguments& a, const Pipeline<kWidth>& pipeline, const Place& place, int rank,
                           bool backwards, Position& at) {
  constexpr uint16_t kBoth = (1 << kClusterBlocks) - 1;
  constexpr int kBytes = Pipeline<kWidth>::kRowsBytes + kColumns * kSwizzleRow;
  const Problem& p = a.problems[place.problem];
  const CUtensorMap* weight = kColumns == kWidth ? &p.weight : &p.half_weight;
  const int first_row = place.row_unit * kUnitRows + rank * kBlockRows;
  const int first_column =
      place.column_unit * kWidth + (kColumns == kWidth ? 0 : place.half * kColumns) + rank * kShare<kColumns>;
#pragma unroll 1
  for (int step = 0; step < a.steps; ++step) {
    wait(pipeline.empty(at.slot), at.parity ^ 1);
    const uint32_t full = pipeline.full(at.slot);
    const int depth = (backwards ? a.steps - 1 - step : step) * kDepth;
    arrive_expecting(full, kBytes);
    copy_box(pipeline.rows(at.slot), &p.x, full, depth, first_row, 0, place.batch);
    copy_box_to_cluster(pipeline.weights(at.slot) + rank * kShare<kColumns> * kSwizzleRow, weight, full, kBoth, depth,
                        first_column, 0, 0);
    at.advance();
  }
}

/// By one thread of each block.
template <int kWidth, Kind kKind>
__device__ void bring(const Arguments& a, const Pipeline<kWidth>& pipeline) {
  const int rank = cluster_rank();
  Position at;
  Pieces<kHasHalves<kWidth, kKind>> pieces(a);
  // Every other piece from its end on: that part of x was read last, and is in L2 still.
  bool backwards = true;
  while (pieces.next()) {
    backwards = !backwards;
    if (kKind == Kind::kHeads && pieces.is_last()) {
      if (a.overlaps_last) wait_for_previous_kernels();
      let_next_kernel_begin();
    }
    if (pieces.place.half < 0) {
      bring_unit<kWidth, kWidth>(a, pipeline, pieces.place, rank, backwards, at);
    } else if constexpr (kHasHalves<kWidth, kKind>) {
      bring_unit<kWidth, kWidth / 2>(a, pipeline, pieces.place, rank, backwards, at);
    }
  }
}

template <int kWidth, int kColumns>
__device__ void compute_unit(const Arguments& a, const Pipeline<kWidth>& pipeline, int consumer, Position& at,
                             Products<kWidth>& products) {
  using Rows = SharedMatrix<kBlockRows, kDepth>;
  using Weights = SharedMatrix<kColumns, kDepth>;
  const int lane = lane_index();
  const auto release = [&](int stage) {
    if (lane < kClusterBlocks) arrive_at_peer(pipeline.empty(stage), lane);
  };
  float sums[kColumns / 2];
#pragma unroll
  for (int i = 0; i < kColumns / 2; ++i) sums[i] = 0.0f;
  const int second_step = products.has_second() ? min(kSecondPartStep, a.steps - 1) : -1;
  int last = 0;
#pragma unroll 1
  for (int step = 0; step < a.steps; ++step) {
    wait(pipeline.full(at.slot), at.parity);
    const uint64_t rows = Rows{pipeline.rows(at.slot)}.depth_along_rows(consumer * 64);
    const uint64_t weights = Weights{pipeline.weights(at.slot)}.depth_along_rows(0);
    fence_products();
#pragma unroll
    for (int i = 0; i < kDepth / 16; ++i) {
      Wgmma<kColumns>::shared_shared(sums, rows + Rows::depth_along_rows_step(i),
                                     weights + Weights::depth_along_rows_step(i), 1);
    }
    commit_products();
    if (step == second_step) {
      products.wait_for_room();
      products.put_second();
      products.announce();
    }
    // The step's products run on while those before them are let go.
    wait_products<1>();
    if (step > 0) release(last);
    last = at.slot;
    at.advance();
  }
  wait_products<0>();
  release(last);
  products.template put_first<kColumns>(sums);
}

template <int kWidth, Kind kKind>
__device__ void compute(const Arguments& a, const Pipeline<kWidth>& pipeline, int consumer) {
  const int warp = consumer * 4 + warp_of_warpgroup();
  Position at;
  Products<kWidth> products(pipeline, warp);
  Pieces<kHasHalves<kWidth, kKind>> pieces(a);
  while (pieces.next()) {
    if (pieces.place.half < 0) {
      compute_unit<kWidth, kWidth>(a, pipeline, consumer, at, products);
    } else if constexpr (kHasHalves<kWidth, kKind>) {
      compute_unit<kWidth, kWidth / 2>(a, pipeline, consumer, at, products);
    }
    if (!pieces.is_last()) products.announce();
  }
  // Behind the last piece there is nothing to compute.
#pragma unroll 1
  for (int part = 0; part == 0 || products.has_second(); part += kPartColumns) {
    auto epilogue = epilogue_of<kWidth, kKind>(a, pieces.place, warp, part);
    if (part > 0) {
      __syncwarp();
      products.put_second();
    }
    epilogue.write(products.exchange());
  }
}

/// By one warp of those that only write: all but the last pieces of every kWriters-th computing warp. Always of the
/// same ones: their barriers tell a part from its neighbours only, so one that had not seen a part put could take the
/// end of an earlier phase for it.
template <int kWidth, Kind kKind>
__device__ void write(const Arguments& a, const Pipeline<kWidth>& pipeline, int writer) {
  uint32_t parity = 0;
  Pieces<kHasHalves<kWidth, kKind>> pieces(a);
  while (pieces.next() && !pieces.is_last()) {
    const int width = pieces.place.half < 0 ? kWidth : kWidth / 2;
#pragma unroll 1
    for (int part = 0; part < width; part += kPartColumns) {
#pragma unroll 1
      for (int warp = writer; warp < kComputingWarps; warp += kWriters) {
        auto epilogue = epilogue_of<kWidth, kKind>(a, pieces.place, warp, part);
        wait(pipeline.put(warp), parity);
        epilogue.write(pipeline.exchange(warp));
        __syncwarp();
        if (threadIdx.x % 32 == 0) arrive(pipeline.taken(warp));
      }
      parity ^= 1;
    }
  }
}

template <int kWidth, Kind kKind>
__global__ void __cluster_dims__(kClusterBlocks) __launch_bounds__(kThreads, 1)
    linear_sm90_kernel(const __grid_constant__ Arguments a) {
  extern __shared__ unsigned char shared[];
  const Pipeline<kWidth> pipeline(shared);
  if (threadIdx.x == 0) {
    pipeline.init();
    for (const Problem& p : a.problems) {
      prefetch_map(&p.x);
      prefetch_map(&p.weight);
    }
  }
  // The peer's copies and arrivals find the barriers initialised.
  cluster_barrier();
  if (!a.overlaps_last) wait_for_previous_kernels();
  const int warpgroup = warpgroup_index();
  if (warpgroup == 0) {
    shrink_registers<kOtherRegisters>();
    const int warp = warp_of_warpgroup();
    if (warp < kWriters) {
      write<kWidth, kKind>(a, pipeline, warp);
    } else if (threadIdx.x % 32 == 0) {
      bring<kWidth, kKind>(a, pipeline);
    }
  } else {
    grow_registers<kConsumerRegisters>();
    compute<kWidth, kKind>(a, pipeline, warpgroup - 1);
  }
  // A block whose peer still copies to it, or arrives at its barriers, stays.
  cluster_barrier();
  // What is behind waits for this kernel alone.
  if (a.overlaps_last) wait_for_previous_kernels();
}

using Kernel = void (*)(Arguments);

template <int kWidth>
Kernel kernel_of(Kind kind) {
  if constexpr (kWidth == kWidths[0]) {
    switch (kind) {
      case Kind::kHeads: return linear_sm90_kernel<kWidth, Kind::kHeads>;
      case Kind::kActivated: return linear_sm90_kernel<kWidth, Kind::kActivated>;
      case Kind::kAcross: return linear_sm90_kernel<kWidth, Kind::kAcross>;
      case Kind::kGated: break;
    }
  }
  return linear_sm90_kernel<kWidth, Kind::kGated>;
}

Kind kind_of(const LinearParams& p) {
  if (p.heads.heads > 0) return Kind::kHeads;
  if (p.activation == Activation::kNone) return Kind::kGated;
  return p.out_column_stride == 1 ? Kind::kActivated : Kind::kAcross;
}

/// The same product with rows and columns exchanged: of one sample. A bias is one of rows then.
LinearParams exchanged(const LinearParams& p) {
  LinearParams across = p;
  across.x = p.weight;
  across.weight = p.x;
  across.rows = p.out_features;
  across.out_features = p.rows;
  across.x_row_stride = p.weight_row_stride;
  across.weight_row_stride = p.x_row_stride;
  across.out_row_stride = p.out_column_stride;
  across.out_column_stride = 1;
  return across;
}
/// As the kernel sees it.
LinearParams seen(const LinearParams& p) { return kind_of(p) == Kind::kAcross ? exchanged(p) : p; }

/// Whether the kernel of its kind computes it.
bool takes(const LinearParams& params) {
  constexpr size_t kElement = 2, kBytes = 16;
  const Kind kind = kind_of(params);
  const LinearParams p = seen(params);
  bool epilogue = false;
  switch (kind) {
    case Kind::kGated: epilogue = p.gate.data != nullptr || p.residual.data != nullptr; break;
    case Kind::kHeads: epilogue = true; break;
    case Kind::kActivated:
    case Kind::kAcross:
      epilogue = p.activation == Activation::kGeluTanh && p.gate.data == nullptr && p.residual.data == nullptr &&
                 (kind == Kind::kActivated || p.batch == 1);
  }
  const auto is_weight = [](const In& weight) {
    return weight.data == nullptr || (weight.dtype == DType::kBF16 && is_aligned(weight.data, kElement, kBytes));
  };
  const bool heads = kind != Kind::kHeads ||
                     (p.heads.head_dim == kHeadDim && is_weight(p.heads.q_weight) && is_weight(p.heads.k_weight) &&
                      is_aligned(p.heads.cos, 4, kBytes) && is_aligned(p.heads.sin, 4, kBytes));
  const int64_t limit = int64_t{1} << 31;
  return epilogue && heads && p.x_column_stride == 1 && p.out_column_stride == 1 && p.weight_scale == nullptr &&
         p.batch > 0 && p.rows > 0 && p.in_features > 0 && p.in_features % kDepth == 0 && p.out_features > 0 &&
         p.out_features % 8 == 0 && p.batch * p.rows < limit && p.out_features < limit && p.x.dtype == DType::kBF16 &&
         p.weight.dtype == DType::kBF16 && is_weight(p.bias) &&
         is_aligned(p.x.data, kElement, kBytes, p.x_row_stride, p.batch == 1 ? 0 : p.x_batch_stride) &&
         is_aligned(p.weight.data, kElement, kBytes, p.weight_row_stride) &&
         is_aligned(p.gate.data, kElement, kBytes, p.batch == 1 ? 0 : p.gate_batch_stride) &&
         is_aligned(p.residual.data, kElement, kBytes, p.residual_row_stride, p.residual_batch_stride) &&
         is_aligned(p.addend.data, kElement, kBytes, p.addend_row_stride, p.addend_batch_stride) &&
         is_aligned(p.out.data, kElement, kBytes, p.out_row_stride, p.batch == 1 ? 0 : p.out_batch_stride);
}

Problem make_problem(const LinearParams& params, int width, bool halves) {
  const LinearParams p = seen(params);
  Problem problem{};
  problem.x = make_head_map(p.x.data, {p.x_batch_stride, p.x_row_stride, p.x_row_stride}, p.batch, p.rows, 1,
                            p.in_features, kBlockRows);
  const HeadStrides weight_strides{p.weight_row_stride, p.weight_row_stride, p.weight_row_stride};
  problem.weight =
      make_head_map(p.weight.data, weight_strides, 1, p.out_features, 1, p.in_features, width / kClusterBlocks);
  if (halves) {
    problem.half_weight =
        make_head_map(p.weight.data, weight_strides, 1, p.out_features, 1, p.in_features, width / 2 / kClusterBlocks);
  }
  problem.grid = {static_cast<int>(p.batch), static_cast<int>(divide_up(p.rows, kUnitRows)),
                  static_cast<int>(divide_up(p.out_features, width))};
  EpilogueArguments& e = problem.epilogue;
  e.bias = static_cast<const bf16*>(p.bias.data);
  e.gate = static_cast<const bf16*>(p.gate.data);
  e.residual = static_cast<const bf16*>(p.residual.data);
  e.addend = static_cast<const bf16*>(p.addend.data);
  e.out = static_cast<bf16*>(p.out.data);
  e.gate_batch_stride = p.gate_batch_stride;
  e.residual_batch_stride = p.residual_batch_stride;
  e.residual_row_stride = p.residual_row_stride;
  e.addend_batch_stride = p.addend_batch_stride;
  e.addend_row_stride = p.addend_row_stride;
  e.out_batch_stride = p.out_batch_stride;
  e.out_row_stride = p.out_row_stride;
  e.rows = static_cast<int>(p.rows);
  e.columns = static_cast<int>(p.out_features);
  e.q_weight = static_cast<const bf16*>(p.heads.q_weight.data);
  e.k_weight = static_cast<const bf16*>(p.heads.k_weight.data);
  e.cos = p.heads.cos;
  e.sin = p.heads.sin;
  e.head_columns = static_cast<int>(p.heads.heads * p.heads.head_dim);
  e.epsilon = p.heads.epsilon;
  return problem;
}

std::array<Sizes, kMaxProblems> sizes_of(const LinearParams* problems, int count) {
  std::array<Sizes, kMaxProblems> sizes{};
  for (int i = 0; i < count; ++i) {
    const LinearParams p = seen(problems[i]);
    sizes[static_cast<size_t>(i)] = {p.batch, p.rows, p.out_features, p.in_features};
  }
  return sizes;
}

template <int kWidth>
void launch(cudaStream_t stream, const Plan& plan, Kind kind, const Arguments& a) {
  const Kernel kernel = kernel_of<kWidth>(kind);
  constexpr size_t kShared = Pipeline<kWidth>::kSharedBytes;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kShared)),
        "linear: shared memory");
  launch_overlapping(kernel, dim3(static_cast<unsigned>(plan.clusters * kClusterBlocks)), dim3(kThreads), kShared,
                     stream, "linear", a);
}

/// Whether one launch computes them all.
bool takes_together(const DeviceProperties& device, const LinearParams* problems, int count) {
  if (device.major != kHopperMajor || device.multiprocessors < kClusterBlocks) return false;
  if (count < 1 || count > kMaxProblems) return false;
  return std::all_of(problems, problems + count, [&](const LinearParams& p) {
    return takes(p) && kind_of(p) == kind_of(problems[0]) && p.in_features == problems[0].in_features;
  });
}

}  // namespace
}  // namespace linear

bool prefers_own_linear(const DeviceProperties& device, const LinearParams* problems, int count) {
  using namespace linear;
  // Below, cuBLASLt's smaller tiles and split depths win: of 512 rows and 3,072 columns, twice.
  constexpr double kLeastEfficiency = 0.6;
  if (!takes_together(device, problems, count)) return false;
  const Kind kind = kind_of(problems[0]);
  const auto sizes = sizes_of(problems, count);
  return efficiency(plan(sizes.data(), count, device.multiprocessors, kind), sizes.data(), count,
                    device.multiprocessors) >= kLeastEfficiency;
}

void launch_linears(cudaStream_t stream, const DeviceProperties& device, const LinearParams* problems, int count) {
  using namespace linear;
  const auto sizes = sizes_of(problems, count);
  const Kind kind = kind_of(problems[0]);
  const Plan planned = plan(sizes.data(), count, device.multiprocessors, kind);
  Arguments a{};
  a.steps = static_cast<int>(problems[0].in_features / kDepth);
  a.overlaps_last = std::all_of(problems, problems + count, [](const LinearParams& p) { return p.overlaps_last; });
  int64_t units = 0;
  for (int i = 0; i < kMaxProblems; ++i) {
    if (i < count) {
      a.problems[i] = make_problem(problems[i], planned.width, planned.whole < planned.units);
      units += count_units(sizes[i], planned.width);
    }
    a.ends[i] = static_cast<int>(units);
  }
  a.whole = static_cast<int>(planned.whole);
  a.pieces = static_cast<int>(planned.whole + 2 * (planned.units - planned.whole));
  if (planned.width == 256) {
    launch<256>(stream, planned, kind, a);
  } else {
    launch<208>(stream, planned, kind, a);
  }
}

}  // namespace chipmunk::cuda::sm90
