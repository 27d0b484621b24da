#include "cuda/any_type.cuh"
#include "cuda/cuda_error.h"
#include "cuda/launch.h"
#include "cuda/overlap.cuh"
#include "cuda/sm90/attention_pipeline.cuh"
#include "cuda/sm90/ptx.cuh"
#include "cuda/sm90/shared_matrix.cuh"
#include "cuda/sm90/tensor_map.h"
#include "cuda/sm90/thin_linear.h"
#include "cuda/sm90/wgmma.cuh"

// features x rows = weight x^T. A block has a range of features; a warp brings weight and x, the others compute.
namespace chipmunk::cuda::sm90 {
namespace {

constexpr int kDepth = kRowElements;  // of a stage

template <int kWarpgroupCount, int kRowCount, int kStageCount>
struct Shape {
  static constexpr int kWarpgroups = kWarpgroupCount, kRows = kRowCount, kStages = kStageCount;
  static constexpr int kFeatures = 64 * kWarpgroups;
  static constexpr int kConsumers = 128 * kWarpgroups;
  static constexpr int kThreads = kConsumers + kWarpSize;
  using Weight = SharedMatrix<kFeatures, kDepth>;
  using X = SharedMatrix<kRows, kDepth>;
  static constexpr int kStageBytes = Weight::kBytes + X::kBytes;
  static constexpr int kBarriersOffset = kStages * kStageBytes;
  static constexpr size_t kSharedBytes = kBarriersOffset + 2 * kStages * 8 + kSwizzlePattern;
  static_assert(X::kBytes % kSwizzlePattern == 0);
};

struct Arguments {
  CUtensorMap weight, x;
  const void* bias;  // or null, dtype bias_dtype
  DType bias_dtype;
  bf16* out;
  int64_t out_row_stride;
  int rows, features, steps;
};

template <class Shape>
struct Pipeline {
  uint32_t base;

  __device__ explicit Pipeline(const void* shared)
      : base((shared_address(shared) + kSwizzlePattern - 1) / kSwizzlePattern * kSwizzlePattern) {}

  __device__ typename Shape::Weight weight(int stage) const { return {base + stage * Shape::kStageBytes}; }
  __device__ typename Shape::X x(int stage) const { return {weight(stage).address + Shape::Weight::kBytes}; }
  __device__ uint32_t full(int stage) const { return base + Shape::kBarriersOffset + stage * 8; }
  __device__ uint32_t empty(int stage) const { return full(stage) + Shape::kStages * 8; }
};

/// By one thread. Weights of the first stages are asked for while x is still being made.
template <class Shape>
__device__ void bring(const Arguments& a, const Pipeline<Shape>& pipeline, int first_feature) {
  const auto bring_weight = [&](int stage, int step) {
    arrive_expecting(pipeline.full(stage), Shape::kStageBytes);
    copy_box_once(pipeline.weight(stage).address, &a.weight, pipeline.full(stage), step * kDepth, first_feature, 0, 0);
  };
  const auto bring_x = [&](int stage, int step) {
    copy_box(pipeline.x(stage).address, &a.x, pipeline.full(stage), step * kDepth, 0, 0, 0);
  };
  const int first_steps = min(Shape::kStages, a.steps);
  for (int step = 0; step < first_steps; ++step) bring_weight(step, step);
  wait_for_previous_kernels();
  let_next_kernel_begin();
  for (int step = 0; step < first_steps; ++step) bring_x(step, step);
  RingPosition<Shape::kStages> at;
  for (int step = first_steps; step < a.steps; ++step) {
    wait(pipeline.empty(at.slot), at.parity);
    bring_weight(at.slot, step);
    bring_x(at.slot, step);
    at.advance();
  }
}

/// A thread has features i and i + 8 of its warpgroup's, and of every eight rows two.
template <class Shape>
__device__ void compute(const Arguments& a, const Pipeline<Shape>& pipeline, int first_feature) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpSize;
  const int feature = first_feature + thread / kWarpSize * 16 + lane / 4;
  float bias[2] = {};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (a.bias != nullptr && feature + half * 8 < a.features) {
      bias[half] = load_any(a.bias, a.bias_dtype, feature + half * 8);
    }
  }
  float sums[Shape::kRows / 2] = {};
  RingPosition<Shape::kStages> at;
  for (int step = 0; step < a.steps; ++step) {
    wait(pipeline.full(at.slot), at.parity);
    const uint64_t weight = pipeline.weight(at.slot).depth_along_rows(thread / 128 * 64);
    const uint64_t x = pipeline.x(at.slot).depth_along_rows(0);
    fence_products();
#pragma unroll
    for (int i = 0; i < kDepth / 16; ++i) {
      Wgmma<Shape::kRows>::shared_shared(sums, weight + Shape::Weight::depth_along_rows_step(i),
                                         x + Shape::X::depth_along_rows_step(i), step > 0 || i > 0);
    }
    commit_products();
    wait_products<0>();
    if (lane == 0) arrive(pipeline.empty(at.slot));
    at.advance();
  }
  // No thread touches memory of the grids before without having waited for them.
  wait_for_previous_kernels();
#pragma unroll
  for (int i = 0; i < Shape::kRows / 2; ++i) {
    const int row = i / 4 * 8 + lane % 4 * 2 + i % 2, half = i / 2 % 2;
    if (row < a.rows && feature + half * 8 < a.features) {
      a.out[row * a.out_row_stride + feature + half * 8] = from_float<bf16>(sums[i] + bias[half]);
    }
  }
}

template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads) thin_linear(const __grid_constant__ Arguments a) {
  extern __shared__ unsigned char shared[];
  const Pipeline<Shape> pipeline(shared);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < Shape::kStages; ++stage) {
      init_barrier(pipeline.full(stage), 1);
      init_barrier(pipeline.empty(stage), Shape::kConsumers / kWarpSize);
    }
    fence_barrier_init();
  }
  __syncthreads();
  const int first_feature = static_cast<int>(blockIdx.x) * Shape::kFeatures;
  if (threadIdx.x >= Shape::kConsumers) {
    if (threadIdx.x == Shape::kConsumers) bring(a, pipeline, first_feature);
  } else {
    compute(a, pipeline, first_feature);
  }
}

template <class Shape>
void launch(cudaStream_t stream, const LinearParams& params) {
  const int64_t rows = params.batch * params.rows, depth = params.in_features;
  const auto map = [&](const In& matrix, int64_t row_stride, int64_t matrix_rows, int box_rows) {
    return make_head_map(matrix.data, {0, row_stride, 0}, 1, matrix_rows, 1, depth, box_rows);
  };
  Arguments a{};
  a.weight = map(params.weight, params.weight_row_stride, params.out_features, Shape::kFeatures);
  a.x = map(params.x, params.x_row_stride, rows, Shape::kRows);
  a.bias = params.bias.data;
  a.bias_dtype = params.bias.dtype;
  a.out = static_cast<bf16*>(params.out.data);
  a.out_row_stride = params.out_row_stride;
  a.rows = static_cast<int>(rows);
  a.features = static_cast<int>(params.out_features);
  a.steps = static_cast<int>(depth / kDepth);
  const auto kernel = thin_linear<Shape>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
        "thin_linear: shared memory");
  check(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(Shape::kSharedBytes)),
      "thin_linear: shared memory");
  launch_overlapping(kernel, dim3(static_cast<unsigned>(ceil_div(params.out_features, Shape::kFeatures))),
                     dim3(Shape::kThreads), Shape::kSharedBytes, stream, "thin_linear", a);
}

}  // namespace

bool takes_thin_linear(const DeviceProperties& device, const LinearParams& params) {
  const auto continues = [&](int64_t batch_stride, int64_t row_stride) {
    return rows_continue(params.batch, params.rows, batch_stride, row_stride);
  };
  constexpr size_t kBox = 16;
  const int64_t rows = params.batch * params.rows;
  return device.major == kHopperMajor && rows > 1 && rows <= 64 && params.in_features > 0 &&
         params.in_features % kDepth == 0 && params.x.dtype == DType::kBF16 && params.weight.dtype == DType::kBF16 &&
         continues(params.x_batch_stride, params.x_row_stride) &&
         continues(params.out_batch_stride, params.out_row_stride) && params.activation == Activation::kNone &&
         params.gate.data == nullptr && params.residual.data == nullptr && params.heads.heads == 0 &&
         is_aligned(params.x.data, sizeof(bf16), kBox, params.x_row_stride) &&
         is_aligned(params.weight.data, sizeof(bf16), kBox, params.weight_row_stride);
}

void launch_thin_linear(cudaStream_t stream, const LinearParams& params) {
  if (params.batch * params.rows <= 48) {
    launch<Shape<1, 48, 7>>(stream, params);
  } else {
    launch<Shape<1, 64, 6>>(stream, params);
  }
}

}  // namespace chipmunk::cuda::sm90
