#include "cpu/linear_kernels.h"

#include "cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/linear_kernels.cpp"
#include <hwy/foreach_target.h>
// foreach_target comes first.
#include <hwy/highway.h>

#include "cpu/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace chipmunk::cpu {
namespace HWY_NAMESPACE {

static_assert(kLinearTileRows % kTileRows == 0);

LinearGeometry linear_geometry_simd() { return {tile_columns(), kTileRows}; }

void pack_weights_simd(const void* weight, DType dtype, int64_t stride, int64_t rows, int64_t depth, float* panel) {
  with_format(dtype, [=](auto format)
                         HWY_ATTR { pack_transposed<decltype(format)>(weight, dtype, stride, rows, depth, panel); });
}

template <class Function>
HWY_INLINE void finish_row(const float* sums, const LinearEpilogue& epilogue, const float* residual, int64_t columns,
                           float* out, const Function& function) {
  const FloatTag d;
  for_each_vector(columns, [&](int64_t i, auto load, auto store) HWY_ATTR {
    FloatVec y = load(sums + i);
    if (epilogue.bias != nullptr) y = hn::Add(y, load(epilogue.bias + i));
    y = function(d, y);
    if (epilogue.gate != nullptr) y = hn::Mul(y, load(epilogue.gate + i));
    if (residual != nullptr) y = hn::Add(y, load(residual + i));
    store(y, out + i);
  });
}

void linear_tile_simd(const LinearTile& tile) {
  const int64_t width = tile_columns();
  const int64_t sum_stride = kLinearTileColumns + kLinearRowPad;
  const int64_t x_stride = kLinearTileDepth + kLinearRowPad;
  float* sums = tile.scratch;
  float* x = tile.scratch + kLinearTileRows * sum_stride;
  if (tile.depth == 0) std::memset(sums, 0, sizeof(float) * kLinearTileRows * sum_stride);
  for (int64_t k = 0; k < tile.depth; k += kLinearTileDepth) {
    const int64_t depth = HWY_MIN(kLinearTileDepth, tile.depth - k);
    for (int64_t r = 0; r < tile.rows; ++r) {
      std::memcpy(x + r * x_stride, tile.x + r * tile.x_stride + k, sizeof(float) * depth);
    }
    for (int64_t column = 0; column < tile.columns; column += width) {
      multiply_panel(tile.rows, x, x_stride, tile.panels + column * tile.depth + k * width, depth, sums + column,
                     sum_stride, k > 0);
    }
  }
  with_activation(tile.epilogue.activation, [&](auto function) HWY_ATTR {
    for (int64_t r = 0; r < tile.rows; ++r) {
      const float* residual =
          tile.epilogue.residual != nullptr ? tile.epilogue.residual + r * tile.epilogue.residual_stride : nullptr;
      finish_row(sums + r * sum_stride, tile.epilogue, residual, tile.columns, tile.out + r * tile.out_stride,
                 function);
    }
  });
}

/// sums[r] = x[r] . weight row, for kRows rows.
template <class Format, int kRows>
HWY_INLINE void dot_rows(const float* const* x, const void* data, DType dtype, int64_t offset, int64_t depth,
                         float* sums) {
  const FloatTag d;
  const int64_t lanes = lanes_of(d);
  const auto* weight = static_cast<const typename Format::Bits*>(data) + offset;
  FloatVec even[kRows], odd[kRows];
  for (int r = 0; r < kRows; ++r) even[r] = odd[r] = hn::Zero(d);
  int64_t k = 0;
  for (; k + 2 * lanes <= depth; k += 2 * lanes) {
    const FloatVec w0 = Format::load(d, weight + k);
    const FloatVec w1 = Format::load(d, weight + k + lanes);
    for (int r = 0; r < kRows; ++r) {
      even[r] = hn::MulAdd(w0, hn::LoadU(d, x[r] + k), even[r]);
      odd[r] = hn::MulAdd(w1, hn::LoadU(d, x[r] + k + lanes), odd[r]);
    }
  }
  for (int r = 0; r < kRows; ++r) sums[r] = hn::GetLane(hn::SumOfLanes(d, hn::Add(even[r], odd[r])));
  for (; k < depth; ++k) {
    const float w = load_as_float(data, dtype, offset + k);
    for (int r = 0; r < kRows; ++r) sums[r] += w * x[r][k];
  }
}

template <class Format>
void few_rows(const FewRows& few, int64_t begin, int64_t end) {
  // Sums of a run of features, so that the epilogue works on whole vectors.
  constexpr int64_t kRun = 64;
  float sums[kMaxFewRows][kRun];
  for (int64_t first = begin; first < end; first += kRun) {
    const int64_t count = HWY_MIN(kRun, end - first);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t offset = (first + i) * few.weight_stride;
      float row_sums[kMaxFewRows];
      int64_t r = 0;
      for (; r + 4 <= few.rows; r += 4) {
        dot_rows<Format, 4>(few.x + r, few.weight, few.weight_dtype, offset, few.depth, row_sums + r);
      }
      for (; r < few.rows; ++r) {
        dot_rows<Format, 1>(few.x + r, few.weight, few.weight_dtype, offset, few.depth, row_sums + r);
      }
      for (r = 0; r < few.rows; ++r) sums[r][i] = row_sums[r];
    }
    with_activation(few.activation, [&](auto function) HWY_ATTR {
      for (int64_t r = 0; r < few.rows; ++r) {
        const LinearEpilogue epilogue{few.bias != nullptr ? few.bias + first : nullptr,
                                      few.gate[r] != nullptr ? few.gate[r] + first : nullptr, nullptr, 0,
                                      few.activation};
        const float* residual = few.residual[r] != nullptr ? few.residual[r] + first : nullptr;
        finish_row(sums[r], epilogue, residual, count, few.out[r] + first, function);
      }
    });
  }
}

void linear_few_rows_simd(const FewRows& few, int64_t begin, int64_t end) {
  with_format(few.weight_dtype, [&](auto format) HWY_ATTR { few_rows<decltype(format)>(few, begin, end); });
}

}  // namespace HWY_NAMESPACE
}  // namespace chipmunk::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chipmunk::cpu {

HWY_EXPORT(linear_geometry_simd);
HWY_EXPORT(pack_weights_simd);
HWY_EXPORT(linear_tile_simd);
HWY_EXPORT(linear_few_rows_simd);

LinearGeometry linear_geometry() { return HWY_DYNAMIC_DISPATCH(linear_geometry_simd)(); }

void pack_weights(const void* weight, DType dtype, int64_t stride, int64_t rows, int64_t depth, float* panel) {
  HWY_DYNAMIC_DISPATCH(pack_weights_simd)(weight, dtype, stride, rows, depth, panel);
}

void linear_tile(const LinearTile& tile) { HWY_DYNAMIC_DISPATCH(linear_tile_simd)(tile); }

void linear_few_rows(const FewRows& few, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(linear_few_rows_simd)(few, begin, end);
}

}  // namespace chipmunk::cpu
#endif  // HWY_ONCE
