// The matrix kernel that linear layers and attention share; compiled once per target.
#if defined(CHIPMUNK_CPU_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CHIPMUNK_CPU_GEMM_INL_H_
#undef CHIPMUNK_CPU_GEMM_INL_H_
#else
#define CHIPMUNK_CPU_GEMM_INL_H_
#endif

#include "core/float_formats.h"
#include "cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace chipmunk::cpu {
namespace HWY_NAMESPACE {

// A register tile is kTileRows x 2 vectors of sums; with the two vectors of b and one of a it fills the register file
// (32 registers in AVX-512, 16 in AVX2), which leaves enough independent sums to hide the latency of multiply-adds.
#if HWY_TARGET == HWY_AVX3
constexpr int kTileRows = 14;
#elif HWY_TARGET == HWY_AVX2
constexpr int kTileRows = 6;
#else
constexpr int kTileRows = 3;
#endif

/// Columns of a register tile: the width of packed panels.
HWY_INLINE int64_t tile_columns() { return 2 * lanes_of(FloatTag()); }

/// c[r][0 .. width) (+)= sum over k < depth of a[r][k] * b[k][0 .. width), r < kRows, width = tile_columns().
/// b is a packed panel: depth rows of `width` values.
template <int kRows>
void multiply_tile(const float* a, int64_t a_stride, const float* b, int64_t depth, float* c, int64_t c_stride,
                   bool accumulate) {
  const FloatTag d;
  const int64_t lanes = lanes_of(d);
  FloatVec sums[kRows][2];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    sums[r][0] = accumulate ? hn::LoadU(d, c + r * c_stride) : hn::Zero(d);
    sums[r][1] = accumulate ? hn::LoadU(d, c + r * c_stride + lanes) : hn::Zero(d);
  }
  for (int64_t k = 0; k < depth; ++k) {
    const FloatVec b0 = hn::LoadU(d, b);
    const FloatVec b1 = hn::LoadU(d, b + lanes);
    b += 2 * lanes;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const FloatVec value = hn::Set(d, a[r * a_stride + k]);
      sums[r][0] = hn::MulAdd(value, b0, sums[r][0]);
      sums[r][1] = hn::MulAdd(value, b1, sums[r][1]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    hn::StoreU(sums[r][0], d, c + r * c_stride);
    hn::StoreU(sums[r][1], d, c + r * c_stride + lanes);
  }
}

/// The same for 1 <= rows < kRows.
template <int kRows>
HWY_INLINE void multiply_rest(int64_t rows, const float* a, int64_t a_stride, const float* b, int64_t depth, float* c,
                              int64_t c_stride, bool accumulate) {
  if constexpr (kRows > 1) {
    if (rows == kRows - 1) return multiply_tile<kRows - 1>(a, a_stride, b, depth, c, c_stride, accumulate);
    multiply_rest<kRows - 1>(rows, a, a_stride, b, depth, c, c_stride, accumulate);
  }
}

/// The same for any number of rows.
HWY_INLINE void multiply_panel(int64_t rows, const float* a, int64_t a_stride, const float* b, int64_t depth, float* c,
                               int64_t c_stride, bool accumulate) {
  int64_t r = 0;
  for (; r + kTileRows <= rows; r += kTileRows) {
    multiply_tile<kTileRows>(a + r * a_stride, a_stride, b, depth, c + r * c_stride, c_stride, accumulate);
  }
  multiply_rest<kTileRows>(rows - r, a + r * a_stride, a_stride, b, depth, c + r * c_stride, c_stride, accumulate);
}

#if HWY_TARGET != HWY_SCALAR
/// Four rows x four values, transposed.
template <class Format>
HWY_INLINE void transpose_block(const typename Format::Bits* source, int64_t stride, float* out, int64_t out_stride) {
  const hn::FixedTag<float, 4> d;
  const hn::FixedTag<uint64_t, 2> d64;
  const auto r0 = Format::load(d, source), r1 = Format::load(d, source + stride);
  const auto r2 = Format::load(d, source + 2 * stride), r3 = Format::load(d, source + 3 * stride);
  const auto low01 = hn::BitCast(d64, hn::InterleaveLower(d, r0, r1));
  const auto low23 = hn::BitCast(d64, hn::InterleaveLower(d, r2, r3));
  const auto high01 = hn::BitCast(d64, hn::InterleaveUpper(d, r0, r1));
  const auto high23 = hn::BitCast(d64, hn::InterleaveUpper(d, r2, r3));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, low01, low23)), d, out);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, low01, low23)), d, out + out_stride);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, high01, high23)), d, out + 2 * out_stride);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, high01, high23)), d, out + 3 * out_stride);
}
#endif

/// panel[k][r] = source[r][k] for r < rows <= tile_columns(), 0 for the other columns of the panel.
template <class Format>
void pack_transposed(const void* data, DType dtype, int64_t stride, int64_t rows, int64_t depth, float* panel) {
  const int64_t width = tile_columns();
  int64_t blocked_rows = 0, blocked_depth = 0;
#if HWY_TARGET != HWY_SCALAR
  const auto* source = static_cast<const typename Format::Bits*>(data);
  blocked_rows = rows / 4 * 4;
  blocked_depth = depth / 4 * 4;
  // Strips of 64: what they write stays in the first-level cache until its lines are full.
  for (int64_t strip = 0; strip < blocked_depth; strip += 64) {
    const int64_t strip_end = HWY_MIN(strip + 64, blocked_depth);
    for (int64_t r = 0; r < blocked_rows; r += 4) {
      for (int64_t k = strip; k < strip_end; k += 4) {
        transpose_block<Format>(source + r * stride + k, stride, panel + k * width + r, width);
      }
    }
  }
#endif
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t k = r < blocked_rows ? blocked_depth : 0; k < depth; ++k) {
      panel[k * width + r] = load_as_float(data, dtype, r * stride + k);
    }
  }
  if (rows == width) return;
  for (int64_t k = 0; k < depth; ++k) std::memset(panel + k * width + rows, 0, sizeof(float) * (width - rows));
}

}  // namespace HWY_NAMESPACE
}  // namespace chipmunk::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
