#include "cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/elementwise.cpp"
#include <hwy/foreach_target.h>
// foreach_target comes first.
#include <hwy/highway.h>

#include "cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace chipmunk::cpu {
namespace HWY_NAMESPACE {

void activation_row_simd(const float* x, int64_t n, Activation activation, float* out) {
  with_activation(activation, [=](auto function) HWY_ATTR {
    for_each_vector(
        n, [&](int64_t i, auto load, auto store) HWY_ATTR { store(function(FloatTag(), load(x + i)), out + i); });
  });
}

void gated_row_simd(const float* gate, const float* x, int64_t n, Activation activation, float* out) {
  with_activation(activation, [=](auto function) HWY_ATTR {
    for_each_vector(n, [&](int64_t i, auto load, auto store)
                           HWY_ATTR { store(hn::Mul(function(FloatTag(), load(gate + i)), load(x + i)), out + i); });
  });
}

void clamp_row_simd(const float* x, int64_t n, float low, float high, float* out) {
  const FloatTag d;
  const FloatVec lower = hn::Set(d, low), upper = hn::Set(d, high);
  for_each_vector(n, [&](int64_t i, auto load, auto store) HWY_ATTR {
    const FloatVec v = load(x + i);
    // Comparisons with NaN are false, so it passes through both.
    const FloatVec raised = hn::IfThenElse(hn::Lt(v, lower), lower, v);
    store(hn::IfThenElse(hn::Gt(raised, upper), upper, raised), out + i);
  });
}

/// a_repeats, b_repeats: the row is one value, repeated.
void axpby_row_simd(float alpha, const float* a, bool a_repeats, float beta, const float* b, bool b_repeats, int64_t n,
                    float* out) {
  const FloatTag d;
  const FloatVec scale_a = hn::Set(d, alpha), scale_b = hn::Set(d, beta);
  const FloatVec first_a = hn::Set(d, *a), first_b = hn::Set(d, *b);
  for_each_vector(n, [&](int64_t i, auto load, auto store) HWY_ATTR {
    const FloatVec va = a_repeats ? first_a : load(a + i);
    const FloatVec vb = b_repeats ? first_b : load(b + i);
    store(hn::MulAdd(scale_a, va, hn::Mul(scale_b, vb)), out + i);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace chipmunk::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "cpu/cpu_backend.h"
#include "cpu/strided_loop.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"

namespace chipmunk {
namespace cpu {
HWY_EXPORT(activation_row_simd);
HWY_EXPORT(gated_row_simd);
HWY_EXPORT(clamp_row_simd);
HWY_EXPORT(axpby_row_simd);
}  // namespace cpu

using namespace cpu;

void CpuBackend::activation(const Context&, const ActivationParams& params) {
  require_f32(params.x.dtype, "activation: x");
  require_f32(params.out.dtype, "activation: out");
  const auto kernel = HWY_DYNAMIC_DISPATCH(activation_row_simd);
  parallel_rows(threads_, params.rows, params.channels, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      kernel(f32(params.x) + r * params.x_row_stride, params.channels, params.activation,
             f32(params.out) + r * params.out_row_stride);
    }
  });
}

void CpuBackend::clamp(const Context&, const ClampParams& params) {
  require_f32(params.x.dtype, "clamp: x");
  require_f32(params.out.dtype, "clamp: out");
  const auto kernel = HWY_DYNAMIC_DISPATCH(clamp_row_simd);
  parallel_rows(threads_, params.rows, params.channels, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      kernel(f32(params.x) + r * params.x_row_stride, params.channels, params.low, params.high,
             f32(params.out) + r * params.out_row_stride);
    }
  });
}

void CpuBackend::gated_activation(const Context&, const GatedActivationParams& params) {
  require_f32(params.gate.dtype, "gated_activation: gate");
  require_f32(params.x.dtype, "gated_activation: x");
  require_f32(params.out.dtype, "gated_activation: out");
  const auto kernel = HWY_DYNAMIC_DISPATCH(gated_row_simd);
  parallel_rows(threads_, params.rows, params.channels, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      kernel(f32(params.gate) + r * params.gate_row_stride, f32(params.x) + r * params.x_row_stride, params.channels,
             params.activation, f32(params.out) + r * params.out_row_stride);
    }
  });
}

void CpuBackend::axpby(const Context&, const AxpbyParams& params) {
  require_f32(params.a.dtype, "axpby: a");
  require_f32(params.b.dtype, "axpby: b");
  require_f32(params.out.dtype, "axpby: out");
  const auto kernel = HWY_DYNAMIC_DISPATCH(axpby_row_simd);
  const StridedLoop<3> loop(params.rank, params.shape, {params.out_strides, params.a_strides, params.b_strides});
  const auto [out_step, a_step, b_step] = loop.inner_strides();
  const int64_t n = loop.inner_size();
  const bool dense = (out_step == 1 || n == 1) && a_step <= 1 && b_step <= 1 && a_step >= 0 && b_step >= 0;
  parallel_rows(threads_, loop.rows(), n, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const auto [out_offset, a_offset, b_offset] = loop.offsets(r);
      float* out = f32(params.out) + out_offset;
      const float* a = f32(params.a) + a_offset;
      const float* b = f32(params.b) + b_offset;
      if (dense) {
        kernel(params.alpha, a, a_step == 0, params.beta, b, b_step == 0, n, out);
      } else {
        for (int64_t i = 0; i < n; ++i) {
          out[i * out_step] = params.alpha * a[i * a_step] + params.beta * b[i * b_step];
        }
      }
    }
  });
}

}  // namespace chipmunk
#endif  // HWY_ONCE
