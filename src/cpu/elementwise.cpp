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

void gated_add_row_simd(const float* x, const float* gate, const float* residual, int64_t n, float* out) {
  for_each_vector(n, [&](int64_t i, auto load, auto store)
                         HWY_ATTR { store(hn::MulAdd(load(gate + i), load(x + i), load(residual + i)), out + i); });
}

}  // namespace HWY_NAMESPACE
}  // namespace chipmunk::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>

#include "core/float_formats.h"
#include "cpu/convert.h"
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
HWY_EXPORT(gated_add_row_simd);
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

void CpuBackend::gated_add(const Context&, const GatedAddParams& params) {
  require_f32(params.x.dtype, "gated_add: x");
  require_f32(params.gate.dtype, "gated_add: gate");
  require_f32(params.residual.dtype, "gated_add: residual");
  require_f32(params.out.dtype, "gated_add: out");
  const auto kernel = HWY_DYNAMIC_DISPATCH(gated_add_row_simd);
  parallel_rows(threads_, params.batch * params.rows, params.channels, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / params.rows, t = i % params.rows;
      kernel(f32(params.x) + b * params.x_batch_stride + t * params.x_row_stride,
             f32(params.gate) + b * params.gate_batch_stride,
             f32(params.residual) + b * params.residual_batch_stride + t * params.residual_row_stride, params.channels,
             f32(params.out) + b * params.out_batch_stride + t * params.out_row_stride);
    }
  });
}

namespace {

/// Values of an operand that are brought to f32 at a time: they stay in the first-level cache.
constexpr int64_t kAxpbyBlock = 1024;

/// One operand of a row: where it starts, and how to read it as dense f32 (or as one repeated value).
struct AxpbyOperand {
  const char* data;
  DType dtype;
  int64_t step;

  /// n values from index `first` on, in `buffer` unless they can be read where they are.
  const float* read(int64_t first, int64_t n, float* buffer) const {
    const int64_t index = first * step;
    if (dtype == DType::kF32 && (step == 0 || step == 1)) return reinterpret_cast<const float*>(data) + index;
    if (step == 1) {
      upcast(data + index * static_cast<int64_t>(size_of(dtype)), dtype, buffer, n);
    } else {
      for (int64_t i = 0; i < (step == 0 ? 1 : n); ++i) buffer[i] = load_as_float(data, dtype, index + i * step);
    }
    return buffer;
  }
};

AxpbyOperand operand_at(const In& in, int64_t offset, int64_t step) {
  return {static_cast<const char*>(in.data) + offset * static_cast<int64_t>(size_of(in.dtype)), in.dtype, step};
}

}  // namespace

void CpuBackend::axpby(const Context&, const AxpbyParams& params) {
  require_f32(params.out.dtype, "axpby: out");
  const auto kernel = HWY_DYNAMIC_DISPATCH(axpby_row_simd);
  const StridedLoop<3> loop(params.rank, params.shape, {params.out_strides, params.a_strides, params.b_strides});
  const auto [out_step, a_step, b_step] = loop.inner_strides();
  const int64_t n = loop.inner_size(), blocks = divide_up(n, kAxpbyBlock);
  const auto run_block = [&, out_stride = out_step, a_stride = a_step, b_stride = b_step](int64_t r, int64_t first) {
    float a_buffer[kAxpbyBlock], b_buffer[kAxpbyBlock], out_buffer[kAxpbyBlock];
    const int64_t count = std::min(kAxpbyBlock, n - first);
    const auto [out_offset, a_offset, b_offset] = loop.offsets(r);
    const float* a = operand_at(params.a, a_offset, a_stride).read(first, count, a_buffer);
    const float* b = operand_at(params.b, b_offset, b_stride).read(first, count, b_buffer);
    float* out = f32(params.out) + out_offset + first * out_stride;
    const bool dense = out_stride == 1 || n == 1;
    kernel(params.alpha, a, a_stride == 0, params.beta, b, b_stride == 0, count, dense ? out : out_buffer);
    for (int64_t i = 0; !dense && i < count; ++i) out[i * out_stride] = out_buffer[i];
  };
  parallel_rows(threads_, loop.rows() * blocks, std::min(n, kAxpbyBlock), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) run_block(i / blocks, i % blocks * kAxpbyBlock);
  });
}

}  // namespace chipmunk
#endif  // HWY_ONCE
