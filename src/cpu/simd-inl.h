// Vector helpers shared by the SIMD sources of this folder; compiled once per target (no include guard in the usual
// sense, as Highway's own headers).
#if defined(CHIPMUNK_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CHIPMUNK_CPU_SIMD_INL_H_
#undef CHIPMUNK_CPU_SIMD_INL_H_
#else
#define CHIPMUNK_CPU_SIMD_INL_H_
#endif

#include <hwy/highway.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "core/dtype.h"
#include "params.h"

HWY_BEFORE_NAMESPACE();
namespace chipmunk::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using FloatVec = hn::Vec<FloatTag>;

inline int64_t lanes_of(FloatTag d) { return static_cast<int64_t>(hn::Lanes(d)); }

/// The first n < Lanes(d) values at p, zeros behind them; reads nothing past them.
template <class D, typename T = hn::TFromD<D>>
HWY_INLINE hn::Vec<D> load_first(D d, const T* p, int64_t n) {
#if HWY_MEM_OPS_MIGHT_FAULT
  HWY_ALIGN T buffer[hn::MaxLanes(D())] = {};
  std::memcpy(buffer, p, static_cast<size_t>(n) * sizeof(T));
  return hn::Load(d, buffer);
#else
  return hn::MaskedLoad(hn::FirstN(d, static_cast<size_t>(n)), d, p);
#endif
}

/// Stores the first n < Lanes(d) values and nothing else.
template <class D, typename T = hn::TFromD<D>>
HWY_INLINE void store_first(hn::Vec<D> v, D d, T* p, int64_t n) {
#if HWY_MEM_OPS_MIGHT_FAULT
  HWY_ALIGN T buffer[hn::MaxLanes(D())];
  hn::Store(v, d, buffer);
  std::memcpy(p, buffer, static_cast<size_t>(n) * sizeof(T));
#else
  hn::BlendedStore(v, hn::FirstN(d, static_cast<size_t>(n)), d, p);
#endif
}

/// Calls body(offset, load, store) for vectors that cover n floats; load(p) and store(v, p) take the address of the
/// vector's first element and respect the end.
template <class Body>
HWY_INLINE void for_each_vector(int64_t n, const Body& body) {
  const FloatTag d;
  const int64_t lanes = lanes_of(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    body(
        i, [d](const float* p) HWY_ATTR { return hn::LoadU(d, p); },
        [d](FloatVec v, float* p) HWY_ATTR { hn::StoreU(v, d, p); });
  }
  if (i < n) {
    const int64_t rest = n - i;
    body(
        i, [d, rest](const float* p) HWY_ATTR { return load_first(d, p, rest); },
        [d, rest](FloatVec v, float* p) HWY_ATTR { store_first(v, d, p, rest); });
  }
}

/// Storage formats of weights: `load` gives Lanes(d) consecutive values from p as floats, exactly.
struct F32Format {
  using Bits = float;
  template <class D>
  static HWY_INLINE hn::Vec<D> load(D d, const Bits* p) {
    return hn::LoadU(d, p);
  }
};

struct BF16Format {
  using Bits = uint16_t;
  template <class D>
  static HWY_INLINE hn::Vec<D> load(D d, const Bits* p) {
    const hn::Rebind<uint16_t, D> d16;
    const hn::Rebind<uint32_t, D> d32;
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, p))));
  }
};

/// The floats that f16 bit patterns stand for.
template <class D, class V16>
HWY_INLINE hn::Vec<D> widen_half(D d, V16 bits) {
#if HWY_TARGET == HWY_EMU128 || HWY_TARGET == HWY_SCALAR
  // Highway's emulation takes infinities and NaNs for numbers. Moved to a float's place, the bits are the value times
  // 2^-112 (the biases are 15 and 127), subnormals included.
  const hn::Rebind<uint32_t, D> d32;
  const auto wide = hn::PromoteTo(d32, bits);
  const auto magnitude = hn::ShiftLeft<13>(hn::And(wide, hn::Set(d32, 0x7fffu)));
  const auto sign = hn::ShiftLeft<16>(hn::And(wide, hn::Set(d32, 0x8000u)));
  const auto number = hn::Mul(hn::BitCast(d, magnitude), hn::Set(d, 0x1p112f));
  const auto special = hn::BitCast(d, hn::Or(magnitude, hn::Set(d32, 0x7f800000u)));
  const auto is_special = hn::RebindMask(d, hn::Gt(magnitude, hn::Set(d32, (0x7bffu << 13))));
  return hn::Or(hn::IfThenElse(is_special, special, number), hn::BitCast(d, sign));
#else
  const hn::Rebind<hwy::float16_t, D> df16;
  return hn::PromoteTo(d, hn::BitCast(df16, bits));
#endif
}

struct F16Format {
  using Bits = uint16_t;
  template <class D>
  static HWY_INLINE hn::Vec<D> load(D d, const Bits* p) {
    const hn::Rebind<uint16_t, D> d16;
    return widen_half(d, hn::LoadU(d16, p));
  }
};

/// e5m2 is the upper byte of an f16.
struct F8E5M2Format {
  using Bits = uint8_t;
  template <class D>
  static HWY_INLINE hn::Vec<D> load(D d, const Bits* p) {
    const hn::Rebind<uint8_t, D> d8;
    const hn::Rebind<uint16_t, D> d16;
    return widen_half(d, hn::ShiftLeft<8>(hn::PromoteTo(d16, hn::LoadU(d8, p))));
  }
};

/// The 7 bits of e4m3, moved to the top of an f16's exponent field, are the value times 2^-8 (the biases are 7 and 15).
struct F8E4M3Format {
  using Bits = uint8_t;
  template <class D>
  static HWY_INLINE hn::Vec<D> load(D d, const Bits* p) {
    const hn::Rebind<uint8_t, D> d8;
    const hn::Rebind<uint16_t, D> d16;
    const auto bits = hn::PromoteTo(d16, hn::LoadU(d8, p));
    const auto magnitude = hn::And(bits, hn::Set(d16, uint16_t{0x7f}));
    const auto sign = hn::ShiftLeft<8>(hn::AndNot(hn::Set(d16, uint16_t{0x7f}), bits));
    // 0x7f is the only NaN; e4m3 has no infinities.
    const auto half = hn::IfThenElse(hn::Eq(magnitude, hn::Set(d16, uint16_t{0x7f})), hn::Set(d16, uint16_t{0x7e00}),
                                     hn::ShiftLeft<7>(magnitude));
    return hn::Mul(widen_half(d, hn::Or(half, sign)), hn::Set(d, 256.0f));
  }
};

/// Calls body(Format{}) with the format of `dtype`, a floating type.
template <class Body>
HWY_INLINE void with_format(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kBF16: return body(BF16Format{});
    case DType::kF16: return body(F16Format{});
    case DType::kF8E4M3: return body(F8E4M3Format{});
    case DType::kF8E5M2: return body(F8E5M2Format{});
    default: return body(F32Format{});
  }
}

/// 2^x for any x <= 127.5, about 1e-7 relative; 0 below -126 (subnormals are flushed). NaN stays NaN.
template <class D>
HWY_INLINE hn::Vec<D> exp2_bounded(D d, hn::Vec<D> x) {
  const hn::RebindToSigned<D> di;
  const auto low = hn::Set(d, -126.0f);
  const auto in_range = hn::Ge(x, low);
  const auto whole = hn::Round(hn::IfThenElse(in_range, x, low));
  const auto r = hn::Sub(x, whole);
  // Taylor series of 2^r: at |r| <= 1/2 the first term left out is 1e-8.
  auto y = hn::Set(d, 1.5403530393381609e-4f);
  y = hn::MulAdd(y, r, hn::Set(d, 1.3333558146428443e-3f));
  y = hn::MulAdd(y, r, hn::Set(d, 9.6181291076284772e-3f));
  y = hn::MulAdd(y, r, hn::Set(d, 5.5504108664821580e-2f));
  y = hn::MulAdd(y, r, hn::Set(d, 2.4022650695910071e-1f));
  y = hn::MulAdd(y, r, hn::Set(d, 6.9314718055994531e-1f));
  y = hn::MulAdd(y, r, hn::Set(d, 1.0f));
  const auto scale = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, whole), hn::Set(di, 127)));
  return hn::IfThenElse(hn::Lt(x, low), hn::Zero(d), hn::Mul(y, hn::BitCast(d, scale)));
}

/// e^x, about 2e-7 relative; infinite above 88, 0 below -87. NaN stays NaN.
template <class D>
HWY_INLINE hn::Vec<D> exp(D d, hn::Vec<D> x) {
  const hn::RebindToSigned<D> di;
  const auto low = hn::Set(d, -87.0f);
  const auto high = hn::Set(d, 88.0f);
  const auto bounded = hn::IfThenElse(hn::Gt(x, low), hn::IfThenElse(hn::Lt(x, high), x, high), low);
  const auto whole = hn::Round(hn::Mul(bounded, hn::Set(d, 1.44269504f)));
  // ln 2 in two parts, so that the remainder keeps its low bits.
  auto r = hn::NegMulAdd(whole, hn::Set(d, 0.693359375f), x);
  r = hn::NegMulAdd(whole, hn::Set(d, -2.12194440e-4f), r);
  auto y = hn::Set(d, 1.0f / 5040.0f);
  y = hn::MulAdd(y, r, hn::Set(d, 1.0f / 720.0f));
  y = hn::MulAdd(y, r, hn::Set(d, 1.0f / 120.0f));
  y = hn::MulAdd(y, r, hn::Set(d, 1.0f / 24.0f));
  y = hn::MulAdd(y, r, hn::Set(d, 1.0f / 6.0f));
  y = hn::MulAdd(y, r, hn::Set(d, 0.5f));
  y = hn::MulAdd(y, r, hn::Set(d, 1.0f));
  y = hn::MulAdd(y, r, hn::Set(d, 1.0f));
  y = hn::Mul(y, hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, whole), hn::Set(di, 127)))));
  y = hn::IfThenElse(hn::Lt(x, low), hn::Zero(d), y);
  return hn::IfThenElse(hn::Gt(x, high), hn::Set(d, std::numeric_limits<float>::infinity()), y);
}

/// x / (1 + e^-t).
template <class D>
HWY_INLINE hn::Vec<D> times_sigmoid(D d, hn::Vec<D> x, hn::Vec<D> t) {
  return hn::Div(x, hn::Add(hn::Set(d, 1.0f), exp(d, hn::Neg(t))));
}

template <class D>
HWY_INLINE hn::Vec<D> gelu_erf(D d, hn::Vec<D> x) {
  HWY_ALIGN float values[hn::MaxLanes(D())];
  hn::Store(x, d, values);
  // erfc keeps the relative accuracy of the left tail, where 1 + erf cancels.
  for (size_t i = 0; i < hn::Lanes(d); ++i) values[i] *= 0.5f * std::erfc(-values[i] * 0.70710678f);
  return hn::Load(d, values);
}

template <Activation kActivation, class D>
HWY_INLINE hn::Vec<D> activate(D d, hn::Vec<D> x) {
  if constexpr (kActivation == Activation::kGeluTanh) {
    // (1 + tanh u) / 2 = 1 / (1 + e^-2u), which has no cancellation where tanh nears -1.
    const auto cubic = hn::Mul(hn::Mul(x, x), hn::Set(d, 0.044715f));
    const auto inner = hn::MulAdd(cubic, x, x);
    return times_sigmoid(d, x, hn::Mul(inner, hn::Set(d, 1.5957691216057308f)));
  } else if constexpr (kActivation == Activation::kGeluErf) {
    return gelu_erf(d, x);
  } else if constexpr (kActivation == Activation::kQuickGelu) {
    return times_sigmoid(d, x, hn::Mul(x, hn::Set(d, 1.702f)));
  } else if constexpr (kActivation == Activation::kSilu) {
    return times_sigmoid(d, x, x);
  } else if constexpr (kActivation == Activation::kRelu) {
    return hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Zero(d), x);
  } else {
    return x;
  }
}

template <Activation kActivation>
struct ActivationTag {
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, hn::Vec<D> x) const {
    return activate<kActivation>(d, x);
  }
};

/// Calls body(function) with the activation as a function object f(d, vector).
template <class Body>
HWY_INLINE void with_activation(Activation activation, const Body& body) {
  switch (activation) {
    case Activation::kNone: return body(ActivationTag<Activation::kNone>{});
    case Activation::kGeluTanh: return body(ActivationTag<Activation::kGeluTanh>{});
    case Activation::kGeluErf: return body(ActivationTag<Activation::kGeluErf>{});
    case Activation::kQuickGelu: return body(ActivationTag<Activation::kQuickGelu>{});
    case Activation::kSilu: return body(ActivationTag<Activation::kSilu>{});
    case Activation::kRelu: return body(ActivationTag<Activation::kRelu>{});
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace chipmunk::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
