#include "cpu/column_mlp_kernels.h"

#include "cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/column_mlp_kernels.cpp"
#include <hwy/foreach_target.h>
// foreach_target comes first.
#include <hwy/highway.h>

#include "cpu/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace chipmunk::cpu {
namespace HWY_NAMESPACE {

void pack_chosen_rows_simd(const WeightRows& rows, int64_t first, int64_t count, int64_t depth, float* scratch,
                           float* panel) {
  with_format(rows.dtype, [&](auto format) HWY_ATTR {
    using Format = decltype(format);
    using Bits = typename Format::Bits;
    // Side by side first: the transposition reads rows at equal distances.
    Bits* side_by_side = reinterpret_cast<Bits*>(scratch);
    for (int64_t r = 0; r < count; ++r) {
      const int64_t row = rows.indices != nullptr ? rows.indices[first + r] : first + r;
      std::memcpy(side_by_side + r * depth, static_cast<const Bits*>(rows.data) + row * rows.stride,
                  sizeof(Bits) * depth);
    }
    pack_transposed<Format>(side_by_side, rows.dtype, depth, count, depth, panel);
  });
}

void pack_chosen_depth_simd(const WeightRows& rows, int64_t column, int64_t count, int64_t depth, float* panel) {
  const int64_t width = tile_columns();
  with_format(rows.dtype, [&](auto format) HWY_ATTR {
    using Format = decltype(format);
    using Bits = typename Format::Bits;
    const FloatTag d;
    const int64_t lanes = lanes_of(d);
    for (int64_t k = 0; k < depth; ++k) {
      const int64_t row = rows.indices != nullptr ? rows.indices[k] : k;
      const int64_t offset = row * rows.stride + column;
      const Bits* source = static_cast<const Bits*>(rows.data) + offset;
      float* out = panel + k * width;
      if (count == width) {
        hn::StoreU(Format::load(d, source), d, out);
        hn::StoreU(Format::load(d, source + lanes), d, out + lanes);
      } else {
        for (int64_t c = 0; c < count; ++c) out[c] = load_as_float(rows.data, rows.dtype, offset + c);
        std::memset(out + count, 0, sizeof(float) * (width - count));
      }
    }
  });
}

void exchange_activations_simd(const float* fresh, const int32_t* indices, int64_t count, float* row, int64_t stride,
                               float* difference) {
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  if (indices != nullptr && stride == 1) {
    const FloatTag d;
    const int64_t lanes = lanes_of(d);
    const hn::RebindToSigned<FloatTag> di;
    for (; i + lanes <= count; i += lanes) {
      const auto where = hn::LoadU(di, indices + i);
      const FloatVec value = hn::LoadU(d, fresh + i);
      hn::StoreU(hn::Sub(value, hn::GatherIndex(d, row, where)), d, difference + i);
      hn::ScatterIndex(value, d, row, where);
    }
  }
#endif
  for (; i < count; ++i) {
    float& cached = row[stride * (indices != nullptr ? indices[i] : i)];
    difference[i] = fresh[i] - cached;
    cached = fresh[i];
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace chipmunk::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chipmunk::cpu {

HWY_EXPORT(pack_chosen_rows_simd);
HWY_EXPORT(pack_chosen_depth_simd);
HWY_EXPORT(exchange_activations_simd);

void pack_chosen_rows(const WeightRows& rows, int64_t first, int64_t count, int64_t depth, float* scratch,
                      float* panel) {
  HWY_DYNAMIC_DISPATCH(pack_chosen_rows_simd)(rows, first, count, depth, scratch, panel);
}

void pack_chosen_depth(const WeightRows& rows, int64_t column, int64_t count, int64_t depth, float* panel) {
  HWY_DYNAMIC_DISPATCH(pack_chosen_depth_simd)(rows, column, count, depth, panel);
}

void exchange_activations(const float* fresh, const int32_t* indices, int64_t count, float* row, int64_t stride,
                          float* difference) {
  HWY_DYNAMIC_DISPATCH(exchange_activations_simd)(fresh, indices, count, row, stride, difference);
}

}  // namespace chipmunk::cpu
#endif  // HWY_ONCE
