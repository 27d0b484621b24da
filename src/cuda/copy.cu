#include <optional>

#include "cuda/any_type.cuh"
#include "cuda/cuda_backend.h"
#include "cuda/cuda_error.h"
#include "cuda/strided.cuh"

namespace chipmunk::cuda {
namespace {

// What moves at a time: units of equal bits, or values (alone or in packs) that change their dtype. Offsets count
// units.

template <class T>
struct Bits {
  using Unit = T;
  __device__ static T load(const In& x, int64_t at) { return static_cast<const T*>(x.data)[at]; }
  __device__ static void store(const Out& out, int64_t at, T unit) {
    if constexpr (sizeof(T) == 16) {
      store_16_bytes(static_cast<T*>(out.data) + at, unit);
    } else {
      static_cast<T*>(out.data)[at] = unit;
    }
  }
};

struct Cast {
  using Unit = float;
  __device__ static float load(const In& x, int64_t at) { return load_any(x.data, x.dtype, at); }
  __device__ static void store(const Out& out, int64_t at, float unit) { store_any(out.data, out.dtype, at, unit); }
};

struct PackCast {
  using Unit = Pack;
  __device__ static Pack load(const In& x, int64_t at) { return load_pack<true>(x, at * kPack, 0); }
  __device__ static void store(const Out& out, int64_t at, const Pack& unit) {
    store_any_pack(out.data, out.dtype, at * kPack, unit);
  }
};

constexpr int kThreads = 256;
/// Units that a thread has on their way at once.
constexpr int kUnits = 4;

struct Elements {
  In x;
  Out out;
  uint32_t count;
  StridedIndex<2> index;  // of out, x
};

/// Any strides; the threads of a warp store side by side.
template <class Mover>
__global__ void __launch_bounds__(kThreads) copy_elements(const __grid_constant__ Elements p) {
  const uint32_t first = blockIdx.x * (kThreads * kUnits) + threadIdx.x;
  typename Mover::Unit units[kUnits];
  int64_t out_offsets[kUnits];
#pragma unroll
  for (int i = 0; i < kUnits; ++i) {
    if (first + i * kThreads < p.count) {
      const Offsets<2> at = p.index.offsets(first + i * kThreads);
      out_offsets[i] = at.values[0];
      units[i] = Mover::load(p.x, at.values[1]);
    }
  }
#pragma unroll
  for (int i = 0; i < kUnits; ++i) {
    if (first + i * kThreads < p.count) Mover::store(p.out, out_offsets[i], units[i]);
  }
}

/// Side of the square tiles of a transposition: a warp reads and writes 64 neighbours of the narrowest types.
constexpr int kTile = 64;
constexpr int kTileRows = kThreads / kWarpSize;

struct Transposition {
  In x;
  Out out;
  int rows, columns;  // x is densest along rows, out along columns
  int64_t x_row, x_column, out_row, out_column;
  int row_tiles, column_tiles;
  StridedIndex<2> others;  // of the first elements, over the other dimensions
};

/// One block a tile, by way of shared memory: both sides see warps that go along their densest dimension.
template <class Mover>
__global__ void __launch_bounds__(kThreads) copy_tiles(const __grid_constant__ Transposition p) {
  using Unit = typename Mover::Unit;
  // A word more a row: lanes that go down a column meet different banks.
  constexpr int kPitch = kTile + (sizeof(Unit) < 4 ? 4 / static_cast<int>(sizeof(Unit)) : 1);
  __shared__ Unit tile[kTile][kPitch];
  const unsigned column_tiles = static_cast<unsigned>(p.column_tiles), row_tiles = static_cast<unsigned>(p.row_tiles);
  const int first_column = static_cast<int>(blockIdx.x % column_tiles) * kTile;
  const int first_row = static_cast<int>(blockIdx.x / column_tiles % row_tiles) * kTile;
  const Offsets<2> base = p.others.offsets(blockIdx.x / column_tiles / row_tiles);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, warp = static_cast<int>(threadIdx.x) / kWarpSize;

  constexpr int kPasses = kTile / kTileRows, kHalves = kTile / kWarpSize;
  Unit units[kPasses][kHalves];
  int64_t at = base.values[1] + (first_row + lane) * p.x_row + (first_column + warp) * p.x_column;
#pragma unroll
  for (int i = 0; i < kPasses; ++i, at += kTileRows * p.x_column) {
#pragma unroll
    for (int k = 0; k < kHalves; ++k) {
      const int column = first_column + warp + i * kTileRows, row = first_row + lane + k * kWarpSize;
      if (column < p.columns && row < p.rows) units[i][k] = Mover::load(p.x, at + k * kWarpSize * p.x_row);
    }
  }
#pragma unroll
  for (int i = 0; i < kPasses; ++i) {
#pragma unroll
    for (int k = 0; k < kHalves; ++k) tile[warp + i * kTileRows][lane + k * kWarpSize] = units[i][k];
  }
  __syncthreads();
  at = base.values[0] + (first_row + warp) * p.out_row + (first_column + lane) * p.out_column;
#pragma unroll
  for (int i = 0; i < kPasses; ++i, at += kTileRows * p.out_row) {
#pragma unroll
    for (int k = 0; k < kHalves; ++k) {
      const int row = first_row + warp + i * kTileRows, column = first_column + lane + k * kWarpSize;
      if (column < p.columns && row < p.rows) {
        Mover::store(p.out, at + k * kWarpSize * p.out_column, tile[lane + k * kWarpSize][warp + i * kTileRows]);
      }
    }
  }
}

template <class Mover>
void launch_elements(cudaStream_t stream, const CopyParams& params, const StridedShape<2>& shape) {
  for_each_part(shape, Offsets<2>{}, [&](const StridedShape<2>& part, const Offsets<2>& first) {
    const Elements arguments{params.x, params.out, static_cast<uint32_t>(part.count()), StridedIndex<2>(part, first)};
    const auto blocks = static_cast<unsigned>(ceil_div(part.count(), kThreads * kUnits));
    copy_elements<Mover><<<blocks, kThreads, 0, stream>>>(arguments);
  });
}

/// The dimension along which x is denser than along the innermost one, if tiles over the two pay.
std::optional<int> find_partner(const StridedShape<2>& shape) {
  // Smaller ones would leave most of a tile empty, and caches serve them well.
  constexpr int64_t kMinSize = 16;
  const auto x_stride = [&](int i) { return std::abs(shape.strides[static_cast<size_t>(i)].values[1]); };
  const auto size = [&](int i) { return shape.sizes[static_cast<size_t>(i)]; };
  int densest = 0;
  for (int i = 1; i < shape.rank; ++i) {
    if (x_stride(i) != 0 && x_stride(i) < x_stride(densest)) densest = i;
  }
  if (densest == 0 || size(0) < kMinSize || size(densest) < kMinSize) return std::nullopt;
  return densest;
}

template <class Mover>
void launch_tiles(cudaStream_t stream, const CopyParams& params, const StridedShape<2>& shape, int partner) {
  for_each_part(shape, Offsets<2>{}, [&](const StridedShape<2>& part, const Offsets<2>& first) {
    StridedShape<2> others;
    for (int i = 1; i < part.rank; ++i) {
      if (i == partner) continue;
      others.sizes[static_cast<size_t>(others.rank)] = part.sizes[static_cast<size_t>(i)];
      others.strides[static_cast<size_t>(others.rank++)] = part.strides[static_cast<size_t>(i)];
    }
    const auto along = static_cast<size_t>(partner);
    const int64_t rows = part.sizes[along], columns = part.sizes[0];
    const int64_t row_tiles = ceil_div(rows, kTile), column_tiles = ceil_div(columns, kTile);
    const Transposition arguments{params.x,
                                  params.out,
                                  static_cast<int>(rows),
                                  static_cast<int>(columns),
                                  part.strides[along].values[1],
                                  part.strides[0].values[1],
                                  part.strides[along].values[0],
                                  part.strides[0].values[0],
                                  static_cast<int>(row_tiles),
                                  static_cast<int>(column_tiles),
                                  StridedIndex<2>(others, first)};
    const auto blocks = static_cast<unsigned>(row_tiles * column_tiles * others.count());
    copy_tiles<Mover><<<blocks, kThreads, 0, stream>>>(arguments);
  });
}

/// One unit at a time where nothing allows more.
template <class Mover>
void launch_narrow(cudaStream_t stream, const CopyParams& params, const StridedShape<2>& shape) {
  if (const std::optional<int> partner = find_partner(shape)) {
    launch_tiles<Mover>(stream, params, shape, *partner);
  } else {
    launch_elements<Mover>(stream, params, shape);
  }
}

void launch_bits(cudaStream_t stream, const CopyParams& params, StridedShape<2> shape) {
  const size_t element = size_of(params.x.dtype);
  // The widest units into which the elements of both sides gather.
  size_t unit = 16;
  while (unit > element) {
    if (is_aligned(params.x.data, 1, unit) && is_aligned(params.out.data, 1, unit) &&
        widen(shape, static_cast<int64_t>(unit / element))) {
      break;
    }
    unit /= 2;
  }
  switch (unit) {
    case 1: return launch_narrow<Bits<uint8_t>>(stream, params, shape);
    case 2: return launch_narrow<Bits<uint16_t>>(stream, params, shape);
    case 4: return launch_narrow<Bits<uint32_t>>(stream, params, shape);
    case 8: return launch_narrow<Bits<uint64_t>>(stream, params, shape);
    default: return launch_elements<Bits<uint4>>(stream, params, shape);
  }
}

void launch_cast(cudaStream_t stream, const CopyParams& params, StridedShape<2> shape) {
  if (starts_packs(params.x.data, params.x.dtype) && starts_packs(params.out.data, params.out.dtype) &&
      widen(shape, kPack)) {
    launch_elements<PackCast>(stream, params, shape);
  } else {
    launch_narrow<Cast>(stream, params, shape);
  }
}

}  // namespace

void CudaBackend::copy(const Context& context, const CopyParams& params) {
  const StridedShape<2> shape =
      make_strided_shape<2>(params.rank, params.shape, {params.out_strides, params.x_strides});
  if (shape.count() == 0) return;
  const cudaStream_t stream = compute_stream(context);
  if (params.x.dtype == params.out.dtype) {
    launch_bits(stream, params, shape);
  } else {
    launch_cast(stream, params, shape);
  }
  check_launch("copy");
}

}  // namespace chipmunk::cuda
