#include <algorithm>

#include "cuda/activations.cuh"
#include "cuda/cuda_backend.h"
#include "cuda/cuda_error.h"
#include "cuda/launch.h"
#include "cuda/mma.cuh"
#include "cuda/sm90/column_mlp.h"

// Two matmuls for every block of tokens: its rows times the kept rows of the first weight, whose epilogue exchanges the
// activations and leaves their differences behind, side by side; then the differences times the kept rows of the second
// weight. Both in tiles of bf16 on the tensor cores; operands that are not in bf16 or not aligned are converted on
// their way into shared memory.
namespace chipmunk::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarpSize;
/// Of a thread block's output, and the depth of a step towards it.
constexpr int kTileRows = 128, kTileColumns = 128, kTileDepth = 64;
/// Of a warp's part of the output.
constexpr int kWarpRows = 64, kWarpColumns = 64;
constexpr int kStages = 3;
constexpr int kOperandElements = kTileRows * kTileDepth;
static_assert(kTileRows == kTileColumns);
constexpr size_t kSharedBytes = sizeof(bf16) * kStages * 2 * kOperandElements;
/// The distance of rows of sums in shared memory keeps what a warp stores at a time in different banks.
constexpr int kSumStride = kTileColumns + 8;
static_assert(sizeof(float) * kTileRows * kSumStride <= kSharedBytes);
/// Differences of more token blocks than this holds are computed in several rounds.
constexpr int64_t kWorkspaceBytes = 256 << 20;

/// A thread's part of a warp's output: sums[m][n] as multiply_add has it, of rows 16 m and columns 8 n on.
using Sums = float[kWarpRows / 16][kWarpColumns / 8][4];

struct Matrix {
  const void* data;
  DType dtype;
  int64_t row_stride;
};

struct Arguments {
  Matrix x, weight1, weight2;
  const void* bias1;  // or null
  DType bias1_dtype;
  bf16* activations;
  bf16* out;
  bf16* differences;  // [token blocks of this round, block_rows, difference_stride]
  const int32_t *indices, *counts;
  int64_t rows, channels, features, out_channels;
  int64_t block_rows, blocks_per_sample, tiles_per_block, first_block;
  int64_t capacity, difference_stride;
  int64_t x_batch_stride;
  int64_t activation_batch_stride, activation_row_stride, activation_feature_stride;
  Activation activation;
};

/// A tile of one token block's rows.
struct Work {
  int64_t batch, first_row, rows;  // rows is 0 or negative where the block has fewer tiles
  int64_t first_difference;        // its first row's in the workspace
  int64_t count;
  const int32_t* ids;  // [count], or null: 0, 1, ...

  /// The feature in one place of the list, or -1 behind its end.
  __device__ int feature(int64_t position) const {
    if (position >= count) return -1;
    return ids != nullptr ? ids[position] : static_cast<int>(position);
  }
};

__device__ Work find_work(const Arguments& a) {
  const int64_t index = blockIdx.x / a.tiles_per_block, tile = blockIdx.x % a.tiles_per_block;
  const int64_t block = a.first_block + index;
  const int64_t block_start = block % a.blocks_per_sample * a.block_rows;
  Work work;
  work.batch = block / a.blocks_per_sample;
  work.first_row = block_start + tile * kTileRows;
  work.rows = min(int64_t{kTileRows}, min(block_start + a.block_rows, a.rows) - work.first_row);
  work.first_difference = index * a.block_rows + tile * kTileRows;
  work.count = a.counts[block];
  work.ids = work.count == a.features ? nullptr : a.indices + block * a.capacity;
  return work;
}

/// Brings columns first to first + kColumns of kRows rows into a tile, the thread's i-th piece from the row row_of(i,
/// its row in the tile); zeros where that is negative, or from end_column on. kAligned: every row is bf16 and starts at
/// 16 bytes, end_column is a multiple of kChunk; the copies are then under way when this returns.
template <bool kAligned, int kRows, int kColumns, class RowOf>
__device__ void load_tile(const Tile<kColumns>& tile, const Matrix& matrix, int64_t first, int64_t end_column,
                          RowOf row_of) {
  constexpr int kChunks = Tile<kColumns>::kChunks;
  constexpr int kPieces = kRows * kChunks / kThreads;
#pragma unroll(kAligned ? kPieces : 1)
  for (int i = 0; i < kPieces; ++i) {
    const int piece = static_cast<int>(threadIdx.x) + i * kThreads;
    const int row = piece / kChunks, chunk = piece % kChunks;
    const int64_t source = row_of(i, row), column = first + chunk * kChunk;
    const int64_t offset = source * matrix.row_stride + column;
    if constexpr (kAligned) {
      const bf16* data = static_cast<const bf16*>(matrix.data);
      const bool valid = source >= 0 && column < end_column;
      copy_async_16(tile.chunk(row, chunk), valid ? data + offset : data, valid);
    } else {
      Vec<bf16, kChunk> values{};
#pragma unroll
      for (int e = 0; e < kChunk; ++e) {
        if (source < 0 || column + e >= end_column) continue;
        values.values[e] = from_float<bf16>(load_any(matrix.data, matrix.dtype, offset + e));
      }
      store_vec(tile.chunk(row, chunk), values);
    }
  }
}

/// sums += a b over one step: a is [rows, depth]; b [columns, depth] or, depth-major, [depth, columns].
template <bool kDepthMajor>
__device__ void multiply_step(Sums& sums, bf16* a, bf16* b, int first_row, int first_column, int lane) {
#pragma unroll
  for (int depth = 0; depth < kTileDepth / 16; ++depth) {
    uint32_t left[kWarpRows / 16][4];
#pragma unroll
    for (int m = 0; m < kWarpRows / 16; ++m) {
      Tile<kTileDepth>{a}.load_block(left[m], first_row + 16 * m, depth * 2, lane);
    }
#pragma unroll
    for (int n = 0; n < kWarpColumns / 8; n += 2) {
      const int column = first_column + 8 * n;
      uint32_t right[2][2], loaded[4];
      if constexpr (kDepthMajor) {
        Tile<kTileColumns>{b}.load_block_transposed(loaded, depth * 16, column / kChunk, lane);
        right[0][0] = loaded[0], right[0][1] = loaded[1], right[1][0] = loaded[2], right[1][1] = loaded[3];
      } else {
        Tile<kTileDepth>{b}.load_block(loaded, column, depth * 2, lane);
        right[0][0] = loaded[0], right[0][1] = loaded[2], right[1][0] = loaded[1], right[1][1] = loaded[3];
      }
#pragma unroll
      for (int m = 0; m < kWarpRows / 16; ++m) {
        multiply_add(sums[m][n], left[m], right[0][0], right[0][1]);
        multiply_add(sums[m][n + 1], left[m], right[1][0], right[1][1]);
      }
    }
  }
}

/// sums = a b, over `depth` in steps; load(step, a, b) brings the operands of one, and is called for all in order.
template <bool kDepthMajor, class Load>
__device__ void multiply(Sums& sums, bf16* memory, int64_t depth, int first_row, int first_column, int lane,
                         Load load) {
  const int64_t steps = (depth + kTileDepth - 1) / kTileDepth;
  const auto stage = [&](int64_t step) { return memory + step % kStages * 2 * kOperandElements; };
  for (int step = 0; step < kStages - 1; ++step) {
    if (step < steps) load(step, stage(step), stage(step) + kOperandElements);
    commit_copies();
  }
  for (int64_t step = 0; step < steps; ++step) {
    wait_copies<kStages - 2>();
    // Everybody's copies are there, and nobody reads the stage before any more.
    __syncthreads();
    const int64_t next = step + kStages - 1;
    if (next < steps) load(next, stage(next), stage(next) + kOperandElements);
    commit_copies();
    multiply_step<kDepthMajor>(sums, stage(step), stage(step) + kOperandElements, first_row, first_column, lane);
  }
}

/// activation(sum + bias) takes the place of the old activations of up to kTileColumns features; the differences, taken
/// between rounded values, go to the workspace, with zeros for features past the list.
__device__ void exchange_activations(const Arguments& a, const Work& work, int64_t first, float* sums, int warp,
                                     int lane) {
  constexpr int kPerLane = kTileColumns / kWarpSize;
  // Their old values are under way together.
  constexpr int kRowsAtOnce = 4;
  int features[kPerLane];
  float bias[kPerLane];
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    features[i] = work.feature(first + lane + i * kWarpSize);
    bias[i] = a.bias1 != nullptr && features[i] >= 0 ? load_any(a.bias1, a.bias1_dtype, features[i]) : 0.0f;
  }
  bf16* activations = a.activations + work.batch * a.activation_batch_stride + work.first_row * a.activation_row_stride;
  const auto place = [&](int row, int feature) {
    return row * a.activation_row_stride + feature * a.activation_feature_stride;
  };
  bf16* differences = a.differences + work.first_difference * a.difference_stride + first;
  const int end_row = static_cast<int>(work.rows);
  for (int row = warp * kRowsAtOnce; row < end_row; row += kWarps * kRowsAtOnce) {
    bf16 old[kRowsAtOnce][kPerLane];
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        const bool exists = row + r < end_row && features[i] >= 0;
        old[r][i] = exists ? activations[place(row + r, features[i])] : bf16{};
      }
    }
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      if (row + r >= end_row) continue;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        const int column = lane + i * kWarpSize;
        float difference = 0.0f;
        if (features[i] >= 0) {
          const float value = activate(a.activation, sums[(row + r) * kSumStride + column] + bias[i]);
          const bf16 fresh = from_float<bf16>(value);
          activations[place(row + r, features[i])] = fresh;
          difference = to_float(fresh) - to_float(old[r][i]);
        }
        differences[(row + r) * a.difference_stride + column] = from_float<bf16>(difference);
      }
    }
  }
}

/// Grid [tiles of token blocks, tiles of features]: neighbouring blocks share the features' weights.
template <bool kAligned>
__global__ void __launch_bounds__(kThreads, 2) renew_activations(const __grid_constant__ Arguments a) {
  extern __shared__ __align__(16) unsigned char shared[];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpSize, lane = thread % kWarpSize;
  const int first_row = warp / 2 * kWarpRows, first_column = warp % 2 * kWarpColumns;
  const Work work = find_work(a);
  const int64_t first = int64_t{blockIdx.y} * kTileColumns;
  if (work.rows <= 0 || first >= work.count) return;

  // The rows of weight1 that this thread brings, the same in every step.
  constexpr int kChunks = Tile<kTileDepth>::kChunks, kPieces = kTileColumns * kChunks / kThreads;
  int features[kPieces];
#pragma unroll
  for (int i = 0; i < kPieces; ++i) features[i] = work.feature(first + (thread + i * kThreads) / kChunks);

  Matrix x = a.x;
  x.data = static_cast<const bf16*>(x.data) + work.batch * a.x_batch_stride + work.first_row * x.row_stride;
  Sums sums = {};
  multiply<false>(sums, reinterpret_cast<bf16*>(shared), a.channels, first_row, first_column, lane,
                  [&](int64_t step, bf16* left, bf16* right) {
                    const int64_t depth = step * kTileDepth;
                    load_tile<kAligned, kTileRows>(Tile<kTileDepth>{left}, x, depth, a.channels,
                                                   [&](int, int row) { return row < work.rows ? row : -1; });
                    load_tile<kAligned, kTileColumns>(
                        Tile<kTileDepth>{right}, a.weight1, depth, a.channels,
                        [&](int i, int row) { return kAligned ? features[i] : work.feature(first + row); });
                  });
  // The operands make room for the sums, which leave the tile row by row.
  __syncthreads();
  float* tile = reinterpret_cast<float*>(shared);
#pragma unroll
  for (int m = 0; m < kWarpRows / 16; ++m) {
#pragma unroll
    for (int n = 0; n < kWarpColumns / 8; ++n) {
      const int row = first_row + 16 * m + lane / 4, column = first_column + 8 * n + lane % 4 * 2;
      store_vec(tile + row * kSumStride + column, Vec<float, 2>{{sums[m][n][0], sums[m][n][1]}});
      store_vec(tile + (row + 8) * kSumStride + column, Vec<float, 2>{{sums[m][n][2], sums[m][n][3]}});
    }
  }
  __syncthreads();
  exchange_activations(a, work, first, tile, warp, lane);
}

/// Grid [tiles of token blocks, tiles of output channels].
template <bool kAligned>
__global__ void __launch_bounds__(kThreads, 2) add_differences(const __grid_constant__ Arguments a) {
  extern __shared__ __align__(16) unsigned char shared[];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpSize, lane = thread % kWarpSize;
  const int first_row = warp / 2 * kWarpRows, first_column = warp % 2 * kWarpColumns;
  const Work work = find_work(a);
  const int64_t first = int64_t{blockIdx.y} * kTileColumns;
  if (work.rows <= 0 || work.count == 0) return;

  constexpr int kChunks = Tile<kTileColumns>::kChunks, kPieces = kTileDepth * kChunks / kThreads;
  int features[kPieces];
  const auto read_features = [&](int64_t step) {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      features[i] = work.feature(step * kTileDepth + (thread + i * kThreads) / kChunks);
    }
  };
  const Matrix differences{a.differences + work.first_difference * a.difference_stride, DType::kBF16,
                           a.difference_stride};
  Sums sums = {};
  read_features(0);
  multiply<true>(sums, reinterpret_cast<bf16*>(shared), work.count, first_row, first_column, lane,
                 [&](int64_t step, bf16* left, bf16* right) {
                   load_tile<true, kTileRows>(Tile<kTileDepth>{left}, differences, step * kTileDepth,
                                              a.difference_stride,
                                              [&](int, int row) { return row < work.rows ? row : -1; });
                   load_tile<kAligned, kTileDepth>(
                       Tile<kTileColumns>{right}, a.weight2, first, a.out_channels,
                       [&](int i, int row) { return kAligned ? features[i] : work.feature(step * kTileDepth + row); });
                   // Long before they are needed.
                   read_features(step + 1);
                 });
  bf16* out = a.out + (work.batch * a.rows + work.first_row) * a.out_channels;
#pragma unroll
  for (int m = 0; m < kWarpRows / 16; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_row + 16 * m + lane / 4 + 8 * half;
      if (row >= work.rows) continue;
#pragma unroll
      for (int n = 0; n < kWarpColumns / 8; ++n) {
        const int64_t column = first + first_column + 8 * n + lane % 4 * 2;
        bf16* to = out + row * a.out_channels + column;
        const float added[2] = {sums[m][n][2 * half], sums[m][n][2 * half + 1]};
        if constexpr (kAligned) {
          if (column >= a.out_channels) continue;
          const Vec<bf16, 2> known = load_vec<bf16, 2>(to);
          store_vec(to, Vec<bf16, 2>{{from_float<bf16>(to_float(known.values[0]) + added[0]),
                                      from_float<bf16>(to_float(known.values[1]) + added[1])}});
        } else {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            if (column + i < a.out_channels) to[i] = from_float<bf16>(to_float(to[i]) + added[i]);
          }
        }
      }
    }
  }
}

void launch(void (*kernel)(Arguments), dim3 grid, cudaStream_t stream, const Arguments& a) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kSharedBytes)),
        "column_mlp: shared memory");
  kernel<<<grid, kThreads, kSharedBytes, stream>>>(a);
  check_launch("column_mlp");
}

bool rows_are_aligned(const Matrix& matrix, int64_t columns, int64_t batch_stride) {
  return matrix.dtype == DType::kBF16 && columns % kChunk == 0 &&
         is_aligned(matrix.data, sizeof(bf16), kChunk * sizeof(bf16), matrix.row_stride, batch_stride);
}

}  // namespace

bool CudaBackend::run_on_hopper(const Context& context, const ColumnMlpParams* problems, int count) const {
  if (!sm90::takes(device_, problems, count)) return false;
  const Tensor workspace = context.empty({sm90::column_mlp_workspace_bytes(problems, count)}, DType::kU8);
  sm90::launch_column_mlp(compute_stream(context), device_, problems, count, workspace.data());
  return true;
}

void CudaBackend::column_mlp_pair(const Context& context, const ColumnMlpPairParams& params) {
  const ColumnMlpParams both[] = {params.first, params.second};
  if (run_on_hopper(context, both, 2)) return;
  Backend::column_mlp_pair(context, params);
}

void CudaBackend::column_mlp(const Context& context, const ColumnMlpParams& params) {
  if (params.batch == 0 || params.rows == 0 || params.features == 0) return;
  if (run_on_hopper(context, &params, 1)) return;
  if (params.weight1_scale != nullptr) return column_mlp_of_values(context, params);
  Arguments a{};
  a.x = {params.x.data, params.x.dtype, params.x_row_stride};
  a.weight1 = {params.weight1.data, params.weight1.dtype, params.weight1_row_stride};
  a.weight2 = {params.weight2.data, params.weight2.dtype, params.weight2_row_stride};
  a.bias1 = params.bias1.data;
  a.bias1_dtype = params.bias1.dtype;
  a.activations = static_cast<bf16*>(params.activations.data);
  a.out = static_cast<bf16*>(params.out.data);
  a.indices = params.indices;
  a.counts = params.counts;
  a.rows = params.rows;
  a.channels = params.channels;
  a.features = params.features;
  a.out_channels = params.out_channels;
  // A block may be larger than all rows together.
  a.block_rows = std::min(params.block_rows, params.rows);
  a.blocks_per_sample = ceil_div(params.rows, a.block_rows);
  a.tiles_per_block = ceil_div(a.block_rows, kTileRows);
  a.capacity = params.capacity;
  // Any block may keep every feature.
  a.difference_stride = round_up(params.features, kTileColumns);
  a.x_batch_stride = params.x_batch_stride;
  a.activation_batch_stride = params.activation_batch_stride;
  a.activation_row_stride = params.activation_row_stride;
  a.activation_feature_stride = params.activation_feature_stride;
  a.activation = params.activation;

  const int64_t blocks = params.batch * a.blocks_per_sample;
  const int64_t block_bytes = a.block_rows * a.difference_stride * static_cast<int64_t>(sizeof(bf16));
  const int64_t blocks_at_once = std::clamp<int64_t>(kWorkspaceBytes / block_bytes, 1, blocks);
  const Tensor differences = context.empty({blocks_at_once, a.block_rows, a.difference_stride}, DType::kBF16);
  a.differences = static_cast<bf16*>(differences.data());

  const bool first_aligned = rows_are_aligned(a.x, a.channels, params.batch == 1 ? 0 : a.x_batch_stride) &&
                             rows_are_aligned(a.weight1, a.channels, 0);
  const bool second_aligned =
      rows_are_aligned(a.weight2, a.out_channels, 0) && is_aligned(a.out, sizeof(bf16), kChunk * sizeof(bf16));
  const cudaStream_t stream = compute_stream(context);
  for (a.first_block = 0; a.first_block < blocks; a.first_block += blocks_at_once) {
    const auto tiles = static_cast<unsigned>(std::min(blocks_at_once, blocks - a.first_block) * a.tiles_per_block);
    const dim3 first_grid(tiles, static_cast<unsigned>(ceil_div(a.features, kTileColumns)));
    launch(first_aligned ? renew_activations<true> : renew_activations<false>, first_grid, stream, a);
    if (a.out_channels == 0) continue;
    const dim3 second_grid(tiles, static_cast<unsigned>(ceil_div(a.out_channels, kTileColumns)));
    launch(second_aligned ? add_differences<true> : add_differences<false>, second_grid, stream, a);
  }
}

}  // namespace chipmunk::cuda
