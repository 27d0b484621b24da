#include <algorithm>
#include <cstring>
#include <string>

#include "chipmunk/error.h"
#include "core/float_formats.h"
#include "cpu/convert.h"
#include "cpu/cpu_backend.h"
#include "cpu/strided_loop.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"

namespace chipmunk {
namespace {

using namespace cpu;

/// Side of the square tiles of a transposition: 16 floats fill a cache line on either side.
constexpr int64_t kTile = 16;
/// Elements that a cast holds in f32 at a time: they stay in the first-level cache.
constexpr int64_t kCastBlock = 1024;

using Loop = StridedLoop<2>;  // operands: out, x

/// Dense rows: memcpy, or casts by way of f32.
void copy_rows(int threads, const Loop& loop, const CopyParams& params) {
  const auto out_size = static_cast<int64_t>(size_of(params.out.dtype)),
             x_size = static_cast<int64_t>(size_of(params.x.dtype));
  auto* out = static_cast<char*>(params.out.data);
  const auto* x = static_cast<const char*>(params.x.data);
  const int64_t n = loop.inner_size();
  // A tensor that is dense all through is one long row: cut it, so that it can be shared among threads.
  const int64_t piece = int64_t{1} << 16;
  const int64_t pieces = divide_up(n, piece);
  parallel_rows(threads, loop.rows() * pieces, std::min(n, piece), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const auto [out_offset, x_offset] = loop.offsets(r / pieces);
      const int64_t from = (r % pieces) * piece;
      const int64_t count = std::min(piece, n - from);
      char* to = out + (out_offset + from) * out_size;
      const char* source = x + (x_offset + from) * x_size;
      if (params.x.dtype == params.out.dtype) {
        std::memcpy(to, source, static_cast<size_t>(count * x_size));
      } else if (params.out.dtype == DType::kF32) {
        upcast(source, params.x.dtype, reinterpret_cast<float*>(to), count);
      } else {
        float block[kCastBlock];
        for (int64_t i = 0; i < count; i += kCastBlock) {
          const int64_t part = std::min(kCastBlock, count - i);
          upcast(source + i * x_size, params.x.dtype, block, part);
          downcast(block, to + i * out_size, params.out.dtype, part);
        }
      }
    }
  });
}

/// Reads one element of any dtype as T: the same bits, or a cast to f32.
template <typename T, bool kCast>
T read_element(const void* x, DType dtype, int64_t index) {
  if constexpr (kCast) {
    return load_as_float(x, dtype, index);
  } else {
    return static_cast<const T*>(x)[index];
  }
}

template <typename T, bool kCast>
void write_element(T value, void* out, DType dtype, int64_t index) {
  if constexpr (kCast) {
    downcast(&value, static_cast<char*>(out) + index * static_cast<int64_t>(size_of(dtype)), dtype, 1);
  } else {
    static_cast<T*>(out)[index] = value;
  }
}

/// Any strides. Tiles over the innermost dimension and `partner`, the one along which x is densest, so that both sides
/// use whole cache lines: a transposition reads along one and writes along the other.
template <typename T, bool kCast>
void copy_tiles(int threads, const Loop& loop, int partner, const CopyParams& params) {
  const int inner = loop.rank() - 1;
  const int64_t columns = loop.size(inner);
  const int64_t rows = partner == inner ? 1 : loop.size(partner);
  const int64_t out_row = partner == inner ? 0 : loop.stride(partner, 0),
                x_row = partner == inner ? 0 : loop.stride(partner, 1);
  const int64_t out_column = loop.stride(inner, 0), x_column = loop.stride(inner, 1);
  const int64_t row_tiles = divide_up(rows, kTile), column_tiles = divide_up(columns, kTile);
  const int64_t tiles = row_tiles * column_tiles;
  parallel_rows(threads, loop.rows_excluding(partner) * tiles, kTile * kTile, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const auto [out_offset, x_offset] = loop.offsets_excluding(task / tiles, partner);
      const int64_t row = (task % tiles) / column_tiles * kTile, column = (task % tiles) % column_tiles * kTile;
      const int64_t row_count = std::min(kTile, rows - row), column_count = std::min(kTile, columns - column);
      T tile[kTile][kTile];
      for (int64_t j = 0; j < column_count; ++j) {
        for (int64_t i = 0; i < row_count; ++i) {
          tile[i][j] = read_element<T, kCast>(params.x.data, params.x.dtype,
                                              x_offset + (row + i) * x_row + (column + j) * x_column);
        }
      }
      for (int64_t i = 0; i < row_count; ++i) {
        for (int64_t j = 0; j < column_count; ++j) {
          write_element<T, kCast>(tile[i][j], params.out.data, params.out.dtype,
                                  out_offset + (row + i) * out_row + (column + j) * out_column);
        }
      }
    }
  });
}

/// The dimension along which x is densest.
int densest_dimension(const Loop& loop) {
  int best = loop.rank() - 1;
  for (int i = 0; i < loop.rank(); ++i) {
    if (loop.stride(i, 1) != 0 &&
        (loop.stride(best, 1) == 0 || std::abs(loop.stride(i, 1)) < std::abs(loop.stride(best, 1)))) {
      best = i;
    }
  }
  return best;
}

}  // namespace

void CpuBackend::copy(const Context&, const CopyParams& params) {
  const bool cast = params.x.dtype != params.out.dtype;
  if (cast && !can_downcast(params.out.dtype)) {
    throw Error(ErrorCode::kUnsupported,
                "the CPU does not convert " + std::string(to_string(params.x.dtype)) + " to " +
                    std::string(to_string(params.out.dtype)),
                "copy");
  }
  const Loop loop(params.rank, params.shape, {params.out_strides, params.x_strides});
  if (loop.rows() == 0) return;
  const auto [out_step, x_step] = loop.inner_strides();
  if (loop.inner_size() == 1 || (out_step == 1 && x_step == 1)) return copy_rows(threads_, loop, params);
  const int partner = densest_dimension(loop);
  if (cast) return copy_tiles<float, true>(threads_, loop, partner, params);
  switch (size_of(params.x.dtype)) {
    case 1: return copy_tiles<uint8_t, false>(threads_, loop, partner, params);
    case 2: return copy_tiles<uint16_t, false>(threads_, loop, partner, params);
    case 4: return copy_tiles<uint32_t, false>(threads_, loop, partner, params);
    default: return copy_tiles<uint64_t, false>(threads_, loop, partner, params);
  }
}

}  // namespace chipmunk
