#include <algorithm>
#include <string>

#include "chipmunk/error.h"
#include "cuda/cuda_backend.h"
#include "cuda/cuda_error.h"
#include "cuda/launch.h"
#include "cuda/mask_bits.cuh"
#include "cuda/random_bits.cuh"
#include "cuda/row_selection.cuh"
#include "cuda/sampled_top_k.cuh"
#include "cuda/selection_plan.h"
#include "cuda/streamed_top_k.cuh"

/// A block selects the columns of a row. Short rows are in its shared memory; longer ones it reads as they come.
namespace chipmunk::cuda {
namespace {

using StoredSelection = RowSelection<kSelectionThreads, StoredKeys>;

struct ColumnArguments {
  const float* sums;
  const uint8_t* static_columns;
  const uint8_t* random_columns;
  int32_t *indices, *counts;
  int heads, groups, columns;
  int64_t static_head_stride, capacity;
  int64_t room_keys;
  int top_k, multiple_of;
  RandomDraw draw;
  StreamPlan stream;  // of long rows

  __device__ bool ranks() const { return top_k > 0 && top_k < columns; }
};

/// The row that this block works on.
class BlockRow {
 public:
  __device__ explicit BlockRow(const ColumnArguments& a) : a_(a) {
    // Neighbouring rows are the heads of one group: they read the same static columns.
    const auto order = static_cast<int>(blockIdx.x);
    head_ = order % a.heads;
    group_ = order / a.heads % a.groups;
    batch_ = order / a.heads / a.groups;
    row_ = (int64_t{batch_} * a.heads + head_) * a.groups + group_;
  }

  __device__ const float* sums() const { return a_.sums + row_ * a_.columns; }

  /// Keeps the static columns alone. Returns whether there is room for others.
  template <class Selection>
  __device__ bool set_static(Selection& selection) const {
    const uint8_t* fixed = nullptr;
    if (a_.static_columns != nullptr) {
      fixed = a_.static_columns + head_ * a_.static_head_stride + int64_t{group_} * a_.columns;
    }
    selection.set_words([&](int w) { return fixed != nullptr ? given(fixed, w) : 0; });
    const int64_t fixed_count = fixed != nullptr ? selection.count_kept().all : 0;
    return fixed_count + a_.room_keys < a_.columns;
  }

  /// Keeps the random columns too.
  template <class Selection>
  __device__ void add_random(Selection& selection) const {
    if (a_.random_columns != nullptr) {
      selection.add_words([&](int w) { return given(a_.random_columns + row_ * a_.columns, w); });
    }
    if (a_.draw.enabled) {
      selection.add_words([&](int w) {
        return a_.draw.word(static_cast<uint32_t>(batch_), static_cast<uint32_t>(head_), static_cast<uint32_t>(group_),
                            static_cast<uint32_t>(w * kWordBits));
      });
    }
  }

  template <class Selection>
  __device__ void write(Selection& selection) const {
    selection.write(selection.count_kept(), a_.multiple_of, a_.capacity, a_.indices + row_ * a_.capacity,
                    a_.counts + row_);
  }

 private:
  __device__ uint32_t given(const uint8_t* mask, int w) const {
    return mask_word(mask + w * kWordBits, a_.columns - w * kWordBits);
  }

  const ColumnArguments& a_;
  int head_, group_, batch_;
  int64_t row_;
};

/// Sums on their way into shared memory, four at a time, as the thread that asked for them will turn them into keys.
__device__ void start_loading(const float* sums, const RowSlice<StoredKeys>& slice) {
  for (int i = StoredSelection::thread() * 4; i < slice.columns; i += kSelectionThreads * 4) {
    copy_async_16(slice.keys.data + i, sums + i, true);
  }
  commit_copies();
}
__device__ void turn_into_keys(const RowSlice<StoredKeys>& slice, const SampledTopK<kSelectionThreads>& search) {
#pragma unroll 2
  for (int i = StoredSelection::thread() * 4; i < slice.columns; i += kSelectionThreads * 4) {
    uint4& quad = *reinterpret_cast<uint4*>(slice.keys.data + i);
    const uint4 keys = {order_key(__uint_as_float(quad.x)), order_key(__uint_as_float(quad.y)),
                        order_key(__uint_as_float(quad.z)), order_key(__uint_as_float(quad.w))};
    quad = keys;
    search.count(keys.x);
    search.count(keys.y);
    search.count(keys.z);
    search.count(keys.w);
  }
}

/// Rows that are held in shared memory.
__global__ void __launch_bounds__(kSelectionThreads, kSelectionBlocks)
    select_stored_columns(const __grid_constant__ ColumnArguments a) {
  extern __shared__ __align__(16) uint32_t memory[];
  __shared__ SelectionShared shared;
  const BlockRow row(a);
  RowSlice<StoredKeys> slice{{memory}, nullptr, a.columns, 0, a.columns};
  // Alignment wants the keys first.
  slice.words = memory + slice.words_count() * kWordBits;
  StoredSelection selection(shared, slice);

  const float* sums = row.sums();
  const bool in_quads = a.columns % 4 == 0 && reinterpret_cast<uintptr_t>(sums) % 16 == 0;
  if (a.ranks() && in_quads) start_loading(sums, slice);
  SampledTopK<kSelectionThreads> search(shared, slice);
  if (a.ranks()) search.sample(a.top_k, [&](int column) { return order_key(sums[column]); });
  const bool has_room = row.set_static(selection);

  wait_copies<0>();
  if (a.top_k >= a.columns) {
    selection.set_words([](int) { return ~0u; });
  } else if (a.ranks() && has_room) {
    row.add_random(selection);
    if (in_quads) {
      turn_into_keys(slice, search);
    } else {
#pragma unroll 4
      for (int i = StoredSelection::thread(); i < a.columns; i += kSelectionThreads) {
        const uint32_t key = order_key(sums[i]);
        slice.keys[i] = key;
        search.count(key);
      }
    }
    search.add(a.top_k, selection);
  }
  row.write(selection);
}

/// Rows that are read once, and again where that did not suffice.
__global__ void __launch_bounds__(kStreamThreads, kStreamBlocks)
    select_streamed_columns(const __grid_constant__ ColumnArguments a) {
  extern __shared__ __align__(16) uint32_t memory[];
  __shared__ SelectionShared shared;
  const BlockRow row(a);
  // Alignment wants the candidates first.
  const RowSlice<ScoreKeys> slice{{row.sums()}, memory + a.stream.candidates * 2, a.columns, 0, a.columns};
  StreamedTopK::Selection selection(shared, slice);
  StreamedTopK search(shared, selection, slice, a.stream, reinterpret_cast<uint2*>(memory));

  if (a.ranks()) search.load_sample();
  const bool has_room = row.set_static(selection);
  if (a.top_k >= a.columns) {
    selection.set_words([](int) { return ~0u; });
  } else if (a.ranks() && has_room) {
    row.add_random(selection);
    if (!search.add(a.top_k)) {
      row.set_static(selection);
      row.add_random(selection);
      selection.add_top_k(a.top_k);
    }
  }
  row.write(selection);
}

}  // namespace

void CudaBackend::select_columns(const Context& context, const SelectColumnsParams& params) {
  constexpr const char* kWhat = "select_columns";
  const int64_t rows = params.batch * params.heads * params.groups;
  if (rows == 0) return;
  ColumnArguments a{};
  a.columns = static_cast<int>(params.key_tokens);
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

  const size_t most = device_.shared_memory_per_block, counters = sizeof(SelectionShared);
  size_t shared_bytes = stored_row_bytes(params.key_tokens);
  const bool stored = shared_bytes + counters <= shared_bytes_of_each(most, kSelectionBlocks);
  if (!stored) {
    a.stream = plan_stream(params.key_tokens, a.top_k, most, counters);
    if (a.stream.samples == 0) {
      throw Error(ErrorCode::kUnsupported,
                  "a row of " + std::to_string(params.key_tokens) + " columns is too long: this GPU takes up to " +
                      std::to_string(longest_streamed_row(most, counters)),
                  kWhat);
    }
    shared_bytes = a.stream.shared_bytes;
  }
  const cudaStream_t stream = compute_stream(context);
  const auto kernel = stored ? select_stored_columns : select_streamed_columns;
  allow_shared_memory(reinterpret_cast<const void*>(kernel), device_, kWhat);
  const auto threads = static_cast<unsigned>(stored ? kSelectionThreads : kStreamThreads);
  kernel<<<static_cast<unsigned>(rows), threads, shared_bytes, stream>>>(a);
  check_launch(kWhat);
}

}  // namespace chipmunk::cuda
