#include "cpu/convert.h"

#include "cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/convert.cpp"
#include <hwy/foreach_target.h>
// foreach_target comes first.
#include <hwy/highway.h>

#include "core/float_formats.h"
#include "cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace chipmunk::cpu {
namespace HWY_NAMESPACE {

void upcast_simd(const void* source, DType dtype, float* destination, int64_t n) {
  with_format(dtype, [=](auto format) HWY_ATTR {
    using Format = decltype(format);
    const auto* from = static_cast<const typename Format::Bits*>(source);
    const FloatTag d;
    const int64_t lanes = lanes_of(d);
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes) hn::StoreU(Format::load(d, from + i), d, destination + i);
    for (; i < n; ++i) destination[i] = load_as_float(source, dtype, i);
  });
}

void downcast_bf16_simd(const float* source, uint16_t* destination, int64_t n) {
  const FloatTag d;
  const hn::RebindToUnsigned<FloatTag> du;
  const hn::Rebind<uint16_t, FloatTag> d16;
  const int64_t lanes = lanes_of(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto value = hn::LoadU(d, source + i);
    const auto bits = hn::BitCast(du, value);
    const auto upper = hn::ShiftRight<16>(bits);
    const auto odd = hn::And(upper, hn::Set(du, 1u));
    const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fffu))));
    // A NaN whose payload sits in the low half would round to infinity.
    const auto quiet = hn::Or(upper, hn::Set(du, 0x40u));
    const auto is_nan = hn::RebindMask(du, hn::IsNaN(value));
    const auto result = hn::IfThenElse(is_nan, quiet, rounded);
    // The demotion saturates signed values: sign-extend the 16 bits so that it only drops the upper half.
    const hn::RebindToSigned<FloatTag> di;
    const hn::Rebind<int16_t, FloatTag> di16;
    const auto extended = hn::ShiftRight<16>(hn::ShiftLeft<16>(hn::BitCast(di, result)));
    hn::StoreU(hn::BitCast(d16, hn::DemoteTo(di16, extended)), d16, destination + i);
  }
  for (; i < n; ++i) destination[i] = float_to_bf16(source[i]);
}

}  // namespace HWY_NAMESPACE
}  // namespace chipmunk::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cstring>
#include <string>

#include "chipmunk/error.h"

namespace chipmunk::cpu {

HWY_EXPORT(upcast_simd);
HWY_EXPORT(downcast_bf16_simd);

void upcast(const void* source, DType dtype, float* destination, int64_t n) {
  HWY_DYNAMIC_DISPATCH(upcast_simd)(source, dtype, destination, n);
}

bool can_downcast(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16; }

void downcast(const float* source, void* destination, DType dtype, int64_t n) {
  switch (dtype) {
    case DType::kF32: std::memcpy(destination, source, static_cast<size_t>(n) * sizeof(float)); return;
    case DType::kBF16: HWY_DYNAMIC_DISPATCH(downcast_bf16_simd)(source, static_cast<uint16_t*>(destination), n); return;
    case DType::kF16:
      for (int64_t i = 0; i < n; ++i) static_cast<uint16_t*>(destination)[i] = float_to_f16(source[i]);
      return;
    default: throw Error(ErrorCode::kUnsupported, "cannot convert to " + std::string(to_string(dtype)), "cpu");
  }
}

}  // namespace chipmunk::cpu
#endif  // HWY_ONCE
