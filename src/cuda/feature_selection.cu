#include <algorithm>
#include <string>

#include "chipmunk/error.h"
#include "cuda/cuda_backend.h"
#include "cuda/cuda_error.h"
#include "cuda/launch.h"
#include "cuda/mask_bits.cuh"
#include "cuda/overlap.cuh"
#include "cuda/random_bits.cuh"
#include "cuda/row_selection.cuh"
#include "cuda/selection_plan.h"

namespace chipmunk::cuda {
namespace {

using Selection = RowSelection<kSelectionThreads, StoredKeys>;

/// Shorter slices are not worth another block.
constexpr int64_t kMinSlice = 2048;

/// How rows are divided among blocks.
struct Plan {
  int blocks_per_row;
  int slice;  // features of a block
  size_t shared_bytes;
};

/// Blocks that a cluster may have: the GPU has clusters, and the code for it that was loaded knows them.
int max_cluster_blocks(const void* kernel) {
  cudaFuncAttributes attributes{};
  check(cudaFuncGetAttributes(&attributes, kernel), "cudaFuncGetAttributes");
  return attributes.ptxVersion >= 90 ? kMaxClusterBlocks : 1;
}

Plan plan_features(int64_t rows, int64_t features, const DeviceProperties& device, int max_blocks, const char* what) {
  const size_t most = device.shared_memory_per_block - sizeof(SelectionShared);
  const size_t wanted =
      shared_bytes_of_each(device.shared_memory_per_block, kSelectionBlocks) - sizeof(SelectionShared);
  const auto slice = [&](int blocks) { return round_up(ceil_div(features, blocks), kWordBits); };

  Plan plan{};
  plan.blocks_per_row = 1;
  const auto too_large = [&](int n) { return stored_row_bytes(slice(n)) > wanted; };
  const auto leaves_idle = [&](int n) { return rows * n < device.multiprocessors && slice(n) > kMinSlice; };
  while (plan.blocks_per_row < max_blocks && (too_large(plan.blocks_per_row) || leaves_idle(plan.blocks_per_row))) {
    plan.blocks_per_row *= 2;
  }
  plan.slice = static_cast<int>(slice(plan.blocks_per_row));
  plan.shared_bytes = stored_row_bytes(plan.slice);
  if (plan.shared_bytes > most) {
    throw Error(ErrorCode::kUnsupported, "a row of " + std::to_string(features) + " features is too long", what);
  }
  return plan;
}

struct FeatureArguments {
  int columns, slice;  // of a row, and of each of its blocks
  const bf16* means;
  float* cached_means;
  const uint8_t* random_features;
  float* drift;
  int32_t *indices, *counts;
  int64_t blocks, mean_blocks, means_per_block;
  int64_t capacity;
  int top_k, multiple_of;
  RandomDraw draw;
  uint32_t head;  // of the drawn rows' names
};

__global__ void __launch_bounds__(kSelectionThreads, 2) select_features(const __grid_constant__ FeatureArguments a) {
  extern __shared__ __align__(16) uint32_t memory[];
  __shared__ SelectionShared shared;
  wait_for_previous_kernels();
  const int64_t row = static_cast<int>(blockIdx.x) / cluster_blocks();
  const int64_t batch = row / a.blocks, block = row % a.blocks;
  RowSlice<StoredKeys> slice;
  slice.row_columns = a.columns;
  slice.first = static_cast<int>(min(int64_t{cluster_rank()} * a.slice, int64_t{a.columns}));
  slice.columns = min(a.slice, a.columns - slice.first);
  // Alignment wants the keys first.
  slice.keys.data = memory;
  slice.words = memory + a.slice;
  Selection selection(shared, slice);

  const int64_t features = a.columns;
  const int64_t first_mean = batch * a.mean_blocks + block * a.means_per_block;
  const int64_t means = min(a.means_per_block, a.mean_blocks - block * a.means_per_block);
  const bf16* __restrict__ now = a.means + first_mean * features + slice.first;
  float* __restrict__ cached = a.cached_means + first_mean * features + slice.first;
  // Summed up where the keys will be, one mean after the other, so that many loads are under way together.
  for (int64_t r = 0; r < means; ++r) {
#pragma unroll 4
    for (int i = Selection::thread(); i < slice.columns; i += kSelectionThreads) {
      float drift = fabsf(to_float(now[r * features + i]) - cached[r * features + i]);
      if (r > 0) drift += __uint_as_float(slice.keys[i]);
      slice.keys[i] = __float_as_uint(drift);
    }
  }
  for (int i = Selection::thread(); i < slice.columns; i += kSelectionThreads) {
    const float drift = __uint_as_float(slice.keys[i]);
    if (a.drift != nullptr) a.drift[row * features + slice.first + i] = drift;
    slice.keys[i] = order_key(drift);
  }

  selection.set_words([&](int w) {
    const int first = slice.first + w * kWordBits;
    uint32_t word = 0;
    if (a.random_features != nullptr) {
      word = mask_word(a.random_features + row * features + first, slice.columns - w * kWordBits);
    }
    if (a.draw.enabled) {
      word |=
          a.draw.word(static_cast<uint32_t>(batch), a.head, static_cast<uint32_t>(block), static_cast<uint32_t>(first));
    }
    return word;
  });
  if (a.top_k >= features) selection.set_words([](int) { return ~0u; });
  Selection::Total kept;
  int wanted = a.top_k >= features ? 0 : a.top_k;
#pragma unroll 1
  while (true) {
    selection.add_top_k(wanted);
    kept = selection.count_kept();
    wanted = selection.missing_columns(kept, a.multiple_of);
    if (wanted == 0) break;
    // Those that fill up are the largest of the others.
    for (int i = Selection::thread(); i < slice.columns; i += kSelectionThreads) {
      if (slice.keeps(i)) slice.keys[i] = 0;
    }
  }
  selection.write(kept, 1, a.capacity, a.indices + row * a.capacity, a.counts + row);
  const bool all = kept.all > a.capacity;
  for (int64_t r = 0; r < means; ++r) {
#pragma unroll 2
    for (int i = Selection::thread(); i < slice.columns; i += kSelectionThreads) {
      const float mean = to_float(now[r * features + i]);
      if (all || slice.keeps(i)) cached[r * features + i] = mean;
    }
  }
  // No block leaves while another reads its memory.
  cluster_barrier();
}

}  // namespace

void CudaBackend::select_features(const Context& context, const SelectFeaturesParams& params) {
  constexpr const char* kWhat = "select_features";
  const int64_t rows = params.batch * params.blocks;
  if (rows == 0) return;
  FeatureArguments a{};
  a.columns = static_cast<int>(params.features);
  a.means = static_cast<const bf16*>(params.means.data);
  a.cached_means = params.cached_means;
  a.random_features = params.random_features;
  a.drift = params.drift;
  a.indices = params.indices;
  a.counts = params.counts;
  a.blocks = params.blocks;
  a.mean_blocks = params.mean_blocks;
  a.means_per_block = params.means_per_block;
  a.capacity = params.capacity;
  a.multiple_of = int_multiple(params.multiple_of, params.features);
  a.top_k = static_cast<int>(std::clamp<int64_t>(params.top_k, 0, params.features));
  a.draw =
      RandomDraw::make(params.random, params.random_threshold, params.batch, params.random.head + 1, params.blocks);
  a.head = static_cast<uint32_t>(params.random.head);

  const auto kernel = cuda::select_features;
  const int max_blocks = max_cluster_blocks(reinterpret_cast<const void*>(kernel));
  const Plan plan = plan_features(rows, params.features, device_, max_blocks, kWhat);
  a.slice = plan.slice;
  const cudaStream_t stream = compute_stream(context);
  allow_shared_memory(reinterpret_cast<const void*>(kernel), device_, kWhat);
  // Neither is there before Hopper.
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = static_cast<unsigned>(plan.blocks_per_row);
  attributes[1].val.clusterDim.y = 1;
  attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(rows * plan.blocks_per_row));
  config.blockDim = dim3(kSelectionThreads);
  config.dynamicSmemBytes = plan.shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = device_.major < kHopperMajor ? 0 : plan.blocks_per_row > 1 ? 2 : 1;
  check(cudaLaunchKernelEx(&config, kernel, a), kWhat);
}

}  // namespace chipmunk::cuda
