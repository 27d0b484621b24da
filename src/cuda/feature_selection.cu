#include <algorithm>
#include <string>

#include "chipmunk/error.h"
#include "cuda/cuda_backend.h"
#include "cuda/cuda_error.h"
#include "cuda/feature_rows.cuh"
#include "cuda/held_features.h"
#include "cuda/launch.h"
#include "cuda/mask_bits.cuh"
#include "cuda/overlap.cuh"
#include "cuda/packs.cuh"
#include "cuda/row_selection.cuh"
#include "cuda/sampled_top_k.cuh"
#include "cuda/selection_plan.h"

namespace chipmunk::cuda {
namespace {

constexpr int kThreads = kMaxSelectionThreads;
/// A thread has 64 registers then.
constexpr int kBlocksPerMultiprocessor = 2;

using Selection = RowSelection<kThreads, StoredKeys>;

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

/// A block a row, or as many as its keys need.
Plan plan_features(int64_t features, const DeviceProperties& device, int max_blocks, const char* what) {
  const size_t most = device.shared_memory_per_block - sizeof(SelectionShared);
  Plan plan{};
  for (plan.blocks_per_row = 1;; plan.blocks_per_row *= 2) {
    plan.slice = static_cast<int>(round_up(ceil_div(features, plan.blocks_per_row), kWordBits));
    plan.shared_bytes = stored_row_bytes(plan.slice);
    if (plan.shared_bytes <= most) return plan;
    if (plan.blocks_per_row >= max_blocks) break;
  }
  throw Error(ErrorCode::kUnsupported, "a row of " + std::to_string(features) + " features is too long", what);
}

/// Values that a thread moves at a time.
template <bool kWhole>
constexpr int kWidth = kWhole ? kPack : 1;

/// What moved, where the keys will be: of each mean the drift, added up. Those of the last one become keys.
template <bool kWhole>
__device__ void load_keys(const FeatureArguments& a, const RowSlice<StoredKeys>& slice, const MeanRows& rows) {
  constexpr int kCount = kWidth<kWhole>;
  for (int64_t r = 0; r < rows.count; ++r) {
    const bf16* now = rows.now + r * a.columns;
    const float* cached = rows.cached + r * a.columns;
#pragma unroll 3
    for (int i = static_cast<int>(threadIdx.x) * kCount; i < slice.columns; i += kThreads * kCount) {
      const Vec<bf16, kCount> means = load_vec<bf16, kCount>(now + i);
      const Vec<float, kCount> before = load_vec<float, kCount>(cached + i);
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
        float drift = fabsf(to_float(means.values[k]) - before.values[k]);
        if (r > 0) drift += __uint_as_float(slice.keys[i + k]);
        const bool last = r == rows.count - 1;
        slice.keys[i + k] = last ? order_key(drift) : __float_as_uint(drift);
        if (last && rows.drift != nullptr) rows.drift[i + k] = drift;
      }
    }
  }
}

/// The cached means of the features kept, or of all, become those of now.
template <bool kWhole>
__device__ void renew_means(const FeatureArguments& a, const RowSlice<StoredKeys>& slice, const MeanRows& rows,
                            bool all) {
  constexpr int kCount = kWidth<kWhole>;
  for (int64_t r = 0; r < rows.count; ++r) {
    const bf16* now = rows.now + r * a.columns;
    float* cached = rows.cached + r * a.columns;
#pragma unroll 3
    for (int i = static_cast<int>(threadIdx.x) * kCount; i < slice.columns; i += kThreads * kCount) {
      const Vec<bf16, kCount> means = load_vec<bf16, kCount>(now + i);
      // A pack is written as a whole: single values would each be a request of their own.
      Vec<float, kCount> renewed = load_vec<float, kCount>(cached + i);
      const uint32_t kept = all ? ~0u : slice.words[i / kWordBits] >> i % kWordBits;
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
        if ((kept >> k & 1) != 0) renewed.values[k] = to_float(means.values[k]);
      }
      store_vec(cached + i, renewed);
    }
  }
}

template <bool kWhole>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    select_features(const __grid_constant__ FeatureArguments a) {
  extern __shared__ __align__(16) uint32_t memory[];
  __shared__ SelectionShared shared;
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

  // What needs no memory comes while the kernels before end.
  const bool every = a.top_k >= a.columns;
  selection.set_words([&](int w) {
    if (every) return ~0u;
    if (!a.draw.enabled) return 0u;
    return a.draw.word(static_cast<uint32_t>(batch), a.head, static_cast<uint32_t>(block),
                       static_cast<uint32_t>(slice.first + w * kWordBits));
  });
  wait_for_previous_kernels();
  let_next_kernel_begin();
  const MeanRows rows(a, row, slice.first);
  load_keys<kWhole>(a, slice, rows);
  if (a.random_features != nullptr) {
    selection.add_words([&](int w) {
      const int64_t first = row * a.columns + slice.first + w * kWordBits;
      return mask_word(a.random_features + first, slice.columns - w * kWordBits);
    });
  }
  Selection::Total kept;
  int wanted = every ? 0 : a.top_k;
  if (wanted > 0 && cluster_blocks() == 1) {
    SampledTopK<kThreads> search(shared, slice);
    __syncthreads();
    search.sample(wanted, [&](int column) { return slice.keys[column]; });
    slice.keys.for_each<kThreads>(slice.columns, [&](uint32_t key) { search.count(key); });
    search.add(wanted, selection);
    wanted = 0;
  }
#pragma unroll 1
  while (true) {
    selection.add_top_k(wanted);
    kept = selection.count_kept();
    wanted = selection.missing_columns(kept, a.multiple_of);
    if (wanted == 0) break;
    // Those that fill up are the largest of the others.
    for (int i = Selection::thread(); i < slice.columns; i += kThreads) {
      if (slice.keeps(i)) slice.keys[i] = 0;
    }
  }
  selection.write(kept, 1, a.capacity, a.indices + row * a.capacity, a.counts + row);
  renew_means<kWhole>(a, slice, rows, kept.all > a.capacity);
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
  const cudaStream_t stream = compute_stream(context);
  if (takes_held_features(a)) return launch_held_features(stream, a, rows);

  const bool whole = has_whole_packs(a.means, DType::kBF16, params.features) &&
                     has_whole_packs(a.cached_means, DType::kF32, params.features);
  const auto kernel = whole ? cuda::select_features<true> : cuda::select_features<false>;
  const int max_blocks = max_cluster_blocks(reinterpret_cast<const void*>(kernel));
  const Plan plan = plan_features(params.features, device_, max_blocks, kWhat);
  a.slice = plan.slice;
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
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = plan.shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = device_.major < kHopperMajor ? 0 : plan.blocks_per_row > 1 ? 2 : 1;
  check(cudaLaunchKernelEx(&config, kernel, a), kWhat);
}

}  // namespace chipmunk::cuda
