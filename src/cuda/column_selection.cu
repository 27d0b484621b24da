#include <algorithm>
#include <string>

#include "chipmunk/error.h"
#include "cuda/cuda_backend.h"
#include "cuda/cuda_error.h"
#include "cuda/launch.h"
#include "cuda/random_bits.cuh"
#include "cuda/row_selection.cuh"
#include "cuda/sampled_top_k.cuh"

namespace chipmunk::cuda {
namespace {

/// Keys in device memory, for rows too long for shared memory, are those of a few rows at a time.
constexpr int64_t kWorkspaceBytes = 64 << 20;
/// Shorter slices are not worth another block.
constexpr int64_t kMinSlice = 2048;

/// How rows are divided among blocks.
struct Plan {
  int blocks_per_row;
  int slice;  // columns of a block
  bool keys_in_shared;
  int64_t rows_at_once;
  size_t shared_bytes;
};

/// Blocks that a cluster may have: the GPU has clusters, and the code for it that was loaded knows them.
int max_cluster_blocks(const void* kernel) {
  cudaFuncAttributes attributes{};
  check(cudaFuncGetAttributes(&attributes, kernel), "cudaFuncGetAttributes");
  return attributes.ptxVersion >= 90 ? kMaxClusterBlocks : 1;
}

Plan plan_selection(int64_t rows, int64_t columns, const DeviceProperties& device, int max_blocks, const char* what) {
  // The system keeps some for itself.
  constexpr size_t kReservedBytes = 1024;
  const size_t most = device.shared_memory_per_block - sizeof(SelectionShared);
  const size_t wanted =
      (device.shared_memory_per_block + kReservedBytes) / kSelectionBlocks - kReservedBytes - sizeof(SelectionShared);
  const auto slice = [&](int blocks) { return round_up(ceil_div(columns, blocks), kWordBits); };
  const auto key_bytes = [&](int blocks) { return static_cast<size_t>(slice(blocks)) * sizeof(uint32_t); };
  const auto word_bytes = [&](int blocks) { return key_bytes(blocks) / kWordBits; };

  Plan plan{};
  plan.blocks_per_row = 1;
  const auto too_large = [&](int n) { return key_bytes(n) + word_bytes(n) > wanted; };
  const auto leaves_idle = [&](int n) { return rows * n < device.multiprocessors && slice(n) > kMinSlice; };
  while (plan.blocks_per_row < max_blocks && (too_large(plan.blocks_per_row) || leaves_idle(plan.blocks_per_row))) {
    plan.blocks_per_row *= 2;
  }
  const int blocks = plan.blocks_per_row;
  if (word_bytes(blocks) > most) {
    throw Error(ErrorCode::kUnsupported, "a row of " + std::to_string(columns) + " columns is too long", what);
  }
  plan.slice = static_cast<int>(slice(blocks));
  plan.keys_in_shared = key_bytes(blocks) + word_bytes(blocks) <= most;
  plan.shared_bytes = word_bytes(blocks) + (plan.keys_in_shared ? key_bytes(blocks) : 0);
  plan.rows_at_once = rows;
  if (!plan.keys_in_shared) {
    const auto row_bytes = static_cast<int64_t>(key_bytes(blocks)) * blocks;
    plan.rows_at_once = std::clamp<int64_t>(kWorkspaceBytes / row_bytes, 1, rows);
  }
  return plan;
}

/// Of the rows of one launch.
struct Rows {
  uint32_t* keys;  // [rows of the launch, blocks_per_row, slice], or null where shared memory holds them
  int first, columns, slice;
};

/// The row that this block works on.
__device__ int block_row(const Rows& rows) { return rows.first + static_cast<int>(blockIdx.x) / cluster_blocks(); }

template <bool kKeysInShared>
__device__ RowSlice block_slice(const Rows& rows, uint32_t* memory) {
  RowSlice slice;
  slice.capacity = rows.slice;
  slice.row_columns = rows.columns;
  slice.first = static_cast<int>(min(int64_t{cluster_rank()} * rows.slice, int64_t{rows.columns}));
  slice.columns = min(rows.slice, rows.columns - slice.first);
  // Alignment wants the keys first.
  slice.keys = kKeysInShared ? memory : rows.keys + static_cast<int64_t>(blockIdx.x) * rows.slice;
  slice.words = kKeysInShared ? memory + rows.slice : memory;
  return slice;
}

/// The bits of up to 32 bytes that are not 0.
__device__ uint32_t mask_word(const uint8_t* mask, int count) {
  uint32_t word = 0;
  if (count >= kWordBits && reinterpret_cast<uintptr_t>(mask) % sizeof(uint4) == 0) {
    const uint4 parts[2] = {reinterpret_cast<const uint4*>(mask)[0], reinterpret_cast<const uint4*>(mask)[1]};
    const uint32_t quads[8] = {parts[0].x, parts[0].y, parts[0].z, parts[0].w,
                               parts[1].x, parts[1].y, parts[1].z, parts[1].w};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      // Bit 7 of every byte that is not 0; the multiplication brings the four together above bit 24.
      const uint32_t set = (((quads[i] & 0x7f7f7f7fu) + 0x7f7f7f7fu) | quads[i]) & 0x80808080u;
      word |= (set >> 7) * 0x01020408u >> 24 << (4 * i);
    }
    return word;
  }
#pragma unroll 1
  for (int i = 0; i < min(count, kWordBits); ++i) word |= static_cast<uint32_t>(mask[i] != 0) << i;
  return word;
}

struct ColumnArguments {
  Rows rows;
  const float* sums;
  const uint8_t* static_columns;
  const uint8_t* random_columns;
  int32_t *indices, *counts;
  int heads, groups;
  int64_t static_head_stride, capacity;
  int64_t room_keys;
  int top_k, multiple_of;
  RandomDraw draw;
};

/// Sums on their way into shared memory, four at a time, as the thread that asked for them will turn them into keys.
__device__ void start_loading(const float* sums, const RowSlice& slice) {
  for (int i = RowSelection::thread() * 4; i < slice.columns; i += kSelectionThreads * 4) {
    copy_async_16(slice.keys + i, sums + i, true);
  }
  commit_copies();
}
__device__ void turn_into_keys(const RowSlice& slice, const SampledTopK& search) {
#pragma unroll 2
  for (int i = RowSelection::thread() * 4; i < slice.columns; i += kSelectionThreads * 4) {
    uint4& quad = *reinterpret_cast<uint4*>(slice.keys + i);
    const uint4 keys = {order_key(__uint_as_float(quad.x)), order_key(__uint_as_float(quad.y)),
                        order_key(__uint_as_float(quad.z)), order_key(__uint_as_float(quad.w))};
    quad = keys;
    search.count(keys.x);
    search.count(keys.y);
    search.count(keys.z);
    search.count(keys.w);
  }
}

template <bool kKeysInShared>
__global__ void __launch_bounds__(kSelectionThreads, kKeysInShared ? kSelectionBlocks : 2)
    select_columns(const __grid_constant__ ColumnArguments a) {
  extern __shared__ __align__(16) uint32_t memory[];
  __shared__ SelectionShared shared;
  // Neighbouring rows are the heads of one group: they read the same static columns.
  const int order = block_row(a.rows);
  const int head = order % a.heads, group = order / a.heads % a.groups, batch = order / a.heads / a.groups;
  const int64_t row = (int64_t{batch} * a.heads + head) * a.groups + group;
  const RowSlice slice = block_slice<kKeysInShared>(a.rows, memory);
  RowSelection selection(shared, slice);

  const float* sums = a.sums + row * a.rows.columns + slice.first;
  const bool ranks = a.top_k > 0 && a.top_k < a.rows.columns;
  const bool in_quads = kKeysInShared && slice.columns % 4 == 0 && reinterpret_cast<uintptr_t>(sums) % 16 == 0;
  if (ranks && in_quads) start_loading(sums, slice);
  SampledTopK search(shared, slice);
  if (ranks) search.sample(a.top_k, [&](int column) { return order_key(a.sums[row * a.rows.columns + column]); });

  const auto given = [&](const uint8_t* mask, int w) {
    return mask_word(mask + slice.first + w * kWordBits, slice.columns - w * kWordBits);
  };
  const uint8_t* fixed = nullptr;
  if (a.static_columns != nullptr) {
    fixed = a.static_columns + head * a.static_head_stride + int64_t{group} * a.rows.columns;
  }
  selection.set_words([&](int w) { return fixed != nullptr ? given(fixed, w) : 0; });
  const int64_t fixed_count = fixed != nullptr ? selection.count_kept().all : 0;
  const bool has_room = fixed_count + a.room_keys < a.rows.columns;

  wait_copies<0>();
  if (a.top_k >= a.rows.columns) {
    selection.set_words([](int) { return ~0u; });
  } else if (ranks && has_room) {
    if (a.random_columns != nullptr) {
      selection.add_words([&](int w) { return given(a.random_columns + row * a.rows.columns, w); });
    }
    if (a.draw.enabled) {
      selection.add_words([&](int w) {
        return a.draw.word(static_cast<uint32_t>(batch), static_cast<uint32_t>(head), static_cast<uint32_t>(group),
                           static_cast<uint32_t>(slice.first + w * kWordBits));
      });
    }
    if (in_quads) {
      turn_into_keys(slice, search);
    } else {
#pragma unroll 4
      for (int i = RowSelection::thread(); i < slice.columns; i += kSelectionThreads) {
        const uint32_t key = order_key(sums[i]);
        slice.keys[i] = key;
        search.count(key);
      }
    }
    if (!search.add(a.top_k)) selection.add_top_k(a.top_k);
  }
  selection.write(selection.count_kept(), a.multiple_of, a.capacity, a.indices + row * a.capacity, a.counts + row);
  // No block leaves while another reads its memory.
  cluster_barrier();
}

struct FeatureArguments {
  Rows rows;
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

template <bool kKeysInShared>
__global__ void __launch_bounds__(kSelectionThreads, kKeysInShared ? 2 : 1)
    select_features(const __grid_constant__ FeatureArguments a) {
  extern __shared__ __align__(16) uint32_t memory[];
  __shared__ SelectionShared shared;
  const int64_t row = block_row(a.rows);
  const int64_t batch = row / a.blocks, block = row % a.blocks;
  const RowSlice slice = block_slice<kKeysInShared>(a.rows, memory);
  RowSelection selection(shared, slice);

  const int64_t features = a.rows.columns;
  const int64_t first_mean = batch * a.mean_blocks + block * a.means_per_block;
  const int64_t means = min(a.means_per_block, a.mean_blocks - block * a.means_per_block);
  const bf16* __restrict__ now = a.means + first_mean * features + slice.first;
  float* __restrict__ cached = a.cached_means + first_mean * features + slice.first;
  // Summed up where the keys will be, one mean after the other, so that many loads are under way together.
  for (int64_t r = 0; r < means; ++r) {
#pragma unroll 4
    for (int i = RowSelection::thread(); i < slice.columns; i += kSelectionThreads) {
      float drift = fabsf(to_float(now[r * features + i]) - cached[r * features + i]);
      if (r > 0) drift += __uint_as_float(slice.keys[i]);
      slice.keys[i] = __float_as_uint(drift);
    }
  }
  for (int i = RowSelection::thread(); i < slice.columns; i += kSelectionThreads) {
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
  RowSelection::Total kept;
  int wanted = a.top_k >= features ? 0 : a.top_k;
#pragma unroll 1
  while (true) {
    selection.add_top_k(wanted);
    kept = selection.count_kept();
    wanted = selection.missing_columns(kept, a.multiple_of);
    if (wanted == 0) break;
    // Those that fill up are the largest of the others.
    for (int i = RowSelection::thread(); i < slice.columns; i += kSelectionThreads) {
      if (slice.keeps(i)) slice.keys[i] = 0;
    }
  }
  selection.write(kept, 1, a.capacity, a.indices + row * a.capacity, a.counts + row);
  const bool all = kept.all > a.capacity;
  for (int64_t r = 0; r < means; ++r) {
#pragma unroll 2
    for (int i = RowSelection::thread(); i < slice.columns; i += kSelectionThreads) {
      const float mean = to_float(now[r * features + i]);
      if (all || slice.keeps(i)) cached[r * features + i] = mean;
    }
  }
  // No block leaves while another reads its memory.
  cluster_barrier();
}

/// multiple_of in 32 bits: any that is larger than the number of columns means all of them.
int int_multiple(int64_t multiple_of, int64_t columns) { return static_cast<int>(std::min(multiple_of, columns + 1)); }

/// Runs one of two kernels, that with its keys in shared memory or that without, on all rows.
template <class Arguments>
void run(const Context& context, const DeviceProperties& device, int64_t rows, void (*in_shared)(Arguments),
         void (*in_workspace)(Arguments), Arguments arguments, const char* what) {
  const int max_blocks = max_cluster_blocks(reinterpret_cast<const void*>(in_shared));
  const Plan plan = plan_selection(rows, arguments.rows.columns, device, max_blocks, what);
  const auto kernel = plan.keys_in_shared ? in_shared : in_workspace;
  // The most of any plan: another thread may be launching the same kernel.
  const size_t most = device.shared_memory_per_block - sizeof(SelectionShared);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(most)), what);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
        what);
  const cudaStream_t stream = compute_stream(context);
  Tensor keys;
  arguments.rows.slice = plan.slice;
  if (!plan.keys_in_shared) {
    keys = context.empty({plan.rows_at_once, plan.blocks_per_row, plan.slice}, DType::kI32);
    arguments.rows.keys = static_cast<uint32_t*>(keys.data());
  }
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = static_cast<unsigned>(plan.blocks_per_row);
  cluster.val.clusterDim.y = 1;
  cluster.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.blockDim = dim3(kSelectionThreads);
  config.dynamicSmemBytes = plan.shared_bytes;
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = plan.blocks_per_row > 1 ? 1 : 0;
  for (int64_t first = 0; first < rows; first += plan.rows_at_once) {
    arguments.rows.first = static_cast<int>(first);
    config.gridDim = dim3(static_cast<unsigned>(std::min(plan.rows_at_once, rows - first) * plan.blocks_per_row));
    check(cudaLaunchKernelEx(&config, kernel, arguments), what);
  }
}

}  // namespace

void CudaBackend::select_columns(const Context& context, const SelectColumnsParams& params) {
  const int64_t rows = params.batch * params.heads * params.groups;
  if (rows == 0) return;
  ColumnArguments a{};
  a.rows.columns = static_cast<int>(params.key_tokens);
  a.sums = params.column_sums;
  a.static_columns = params.static_columns;
  a.random_columns = params.random_columns;
  a.indices = params.indices;
  a.counts = params.counts;
  a.heads = static_cast<int>(params.heads);
  a.groups = static_cast<int>(params.groups);
  a.static_head_stride = params.static_head_stride;
  a.capacity = params.capacity;
  a.multiple_of = int_multiple(params.multiple_of, params.key_tokens);
  a.room_keys = params.room_keys;
  a.top_k = static_cast<int>(std::clamp<int64_t>(params.top_k, 0, params.key_tokens));
  a.draw = RandomDraw::make(params.random, params.random_threshold, params.batch, params.heads, params.groups);
  run(context, device_, rows, cuda::select_columns<true>, cuda::select_columns<false>, a, "select_columns");
}

void CudaBackend::select_features(const Context& context, const SelectFeaturesParams& params) {
  const int64_t rows = params.batch * params.blocks;
  if (rows == 0) return;
  FeatureArguments a{};
  a.rows.columns = static_cast<int>(params.features);
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
  run(context, device_, rows, cuda::select_features<true>, cuda::select_features<false>, a, "select_features");
}

}  // namespace chipmunk::cuda
