#include "cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/norms.cpp"
#include <hwy/foreach_target.h>
// foreach_target comes first.
#include <hwy/highway.h>

#include "cpu/norms.h"
#include "cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace chipmunk::cpu {
namespace HWY_NAMESPACE {

/// Sum over the row of f(x), in several accumulators: short chains round less and run faster.
template <class Term>
HWY_INLINE float sum_row(const float* x, int64_t n, const Term& term) {
  const FloatTag d;
  const int64_t lanes = lanes_of(d);
  FloatVec s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = hn::Add(s0, term(hn::LoadU(d, x + i)));
    s1 = hn::Add(s1, term(hn::LoadU(d, x + i + lanes)));
    s2 = hn::Add(s2, term(hn::LoadU(d, x + i + 2 * lanes)));
    s3 = hn::Add(s3, term(hn::LoadU(d, x + i + 3 * lanes)));
  }
  for (; i + lanes <= n; i += lanes) s0 = hn::Add(s0, term(hn::LoadU(d, x + i)));
  float sum = 0.0f;
  if (i < n) {
    const FloatVec rest =
        hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(n - i)), term(load_first(d, x + i, n - i)));
    s1 = hn::Add(s1, rest);
  }
  sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  return sum;
}

template <bool kAffine, bool kModulated>
HWY_INLINE void layer_norm_row(const float* x, const LayerNormRow& row, float* out) {
  const FloatTag d;
  const auto n = static_cast<float>(row.channels);
  const float mean = sum_row(x, row.channels, [](FloatVec v) HWY_ATTR { return v; }) / n;
  const FloatVec center = hn::Set(d, mean);
  const float square = sum_row(x, row.channels, [center](FloatVec v) HWY_ATTR {
    const FloatVec deviation = hn::Sub(v, center);
    return hn::Mul(deviation, deviation);
  });
  const FloatVec inverse = hn::Set(d, 1.0f / std::sqrt(square / n + row.epsilon));
  for_each_vector(row.channels, [&](int64_t i, auto load, auto store) HWY_ATTR {
    FloatVec y = hn::Mul(hn::Sub(load(x + i), center), inverse);
    if constexpr (kAffine) y = hn::MulAdd(y, load(row.weight + i), load(row.bias + i));
    if constexpr (kModulated) y = hn::MulAdd(y, hn::Add(load(row.scale + i), hn::Set(d, 1.0f)), load(row.shift + i));
    store(y, out + i);
  });
}

void layer_norm_row_simd(const float* x, const LayerNormRow& row, float* out) {
  if (row.weight != nullptr) {
    if (row.scale != nullptr) {
      layer_norm_row<true, true>(x, row, out);
    } else {
      layer_norm_row<true, false>(x, row, out);
    }
  } else if (row.scale != nullptr) {
    layer_norm_row<false, true>(x, row, out);
  } else {
    layer_norm_row<false, false>(x, row, out);
  }
}

HWY_INLINE float inverse_rms(const float* x, int64_t channels, float epsilon) {
  const float square = sum_row(x, channels, [](FloatVec v) HWY_ATTR { return hn::Mul(v, v); });
  return 1.0f / std::sqrt(square / static_cast<float>(channels) + epsilon);
}

void rms_norm_row_simd(const float* x, const float* weight, int64_t channels, float epsilon, float* out) {
  const FloatTag d;
  const FloatVec inverse = hn::Set(d, inverse_rms(x, channels, epsilon));
  for_each_vector(channels, [&](int64_t i, auto load, auto store)
                                HWY_ATTR { store(hn::Mul(hn::Mul(load(x + i), inverse), load(weight + i)), out + i); });
}

void rope_row(const float* cos, const float* sin, int64_t pairs, float* x) {
  const FloatTag d;
  const int64_t lanes = lanes_of(d);
  int64_t i = 0;
  for (; i + lanes <= pairs; i += lanes) {
    FloatVec a, b;
    hn::LoadInterleaved2(d, x + 2 * i, a, b);
    const FloatVec c = hn::LoadU(d, cos + i);
    const FloatVec s = hn::LoadU(d, sin + i);
    hn::StoreInterleaved2(hn::NegMulAdd(b, s, hn::Mul(a, c)), hn::MulAdd(a, s, hn::Mul(b, c)), d, x + 2 * i);
  }
  for (; i < pairs; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = a * cos[i] - b * sin[i];
    x[2 * i + 1] = a * sin[i] + b * cos[i];
  }
}

void qk_row_simd(float* x, const QkRow& row) {
  if (row.weight != nullptr) rms_norm_row_simd(x, row.weight, row.head_dim, row.epsilon, x);
  if (row.cos != nullptr) rope_row(row.cos, row.sin, row.head_dim / 2, x);
}

}  // namespace HWY_NAMESPACE
}  // namespace chipmunk::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "cpu/cpu_backend.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"

namespace chipmunk {
namespace cpu {
HWY_EXPORT(layer_norm_row_simd);
HWY_EXPORT(rms_norm_row_simd);
HWY_EXPORT(qk_row_simd);
}  // namespace cpu

using namespace cpu;

namespace {

/// What comes before the norm, as an op of its own.
GatedAddParams update_of(const LayerNormParams& p) {
  GatedAddParams update{};
  update.x = p.update;
  update.gate = p.gate;
  update.residual = p.x;
  update.out = p.updated;
  update.batch = p.batch;
  update.rows = p.rows;
  update.channels = p.channels;
  update.x_batch_stride = p.update_batch_stride;
  update.x_row_stride = p.update_row_stride;
  update.gate_batch_stride = p.gate_batch_stride;
  update.residual_batch_stride = update.out_batch_stride = p.x_batch_stride;
  update.residual_row_stride = update.out_row_stride = p.x_row_stride;
  return update;
}

}  // namespace

void CpuBackend::layer_norm(const Context& context, const LayerNormParams& params) {
  require_f32(params.x.dtype, "layer_norm: x");
  require_f32(params.out.dtype, "layer_norm: out");
  require_f32(params.scale.dtype, "layer_norm: scale");
  require_f32(params.shift.dtype, "layer_norm: shift");
  if (params.update.data != nullptr) gated_add(context, update_of(params));
  const F32Vector weight(context, params.weight, params.channels);
  const F32Vector bias(context, params.bias, params.channels);
  const auto kernel = HWY_DYNAMIC_DISPATCH(layer_norm_row_simd);
  parallel_rows(threads_, params.batch * params.rows, params.channels, [&](int64_t begin, int64_t end) {
    LayerNormRow row{weight.data(), bias.data(), nullptr, nullptr, params.channels, params.epsilon};
    for (int64_t r = begin; r < end; ++r) {
      const int64_t b = r / params.rows, t = r % params.rows;
      if (params.scale.data != nullptr) {
        row.scale = f32(params.scale) + b * params.modulation_batch_stride;
        row.shift = f32(params.shift) + b * params.modulation_batch_stride;
      }
      kernel(f32(params.x) + b * params.x_batch_stride + t * params.x_row_stride, row,
             f32(params.out) + b * params.out_batch_stride + t * params.out_row_stride);
    }
  });
}

void CpuBackend::rms_norm(const Context& context, const RmsNormParams& params) {
  require_f32(params.x.dtype, "rms_norm: x");
  require_f32(params.out.dtype, "rms_norm: out");
  const F32Vector weight(context, params.weight, params.channels);
  const auto kernel = HWY_DYNAMIC_DISPATCH(rms_norm_row_simd);
  parallel_rows(threads_, params.rows, params.channels, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      kernel(f32(params.x) + r * params.x_row_stride, weight.data(), params.channels, params.epsilon,
             f32(params.out) + r * params.out_row_stride);
    }
  });
}

void CpuBackend::qk_norm_rope(const Context& context, const QkNormRopeParams& params) {
  require_f32(params.q.dtype, "qk_norm_rope: q");
  require_f32(params.k.dtype, "qk_norm_rope: k");
  const F32Vector q_weight(context, params.q_weight, params.head_dim);
  const F32Vector k_weight(context, params.k_weight, params.head_dim);
  const auto kernel = HWY_DYNAMIC_DISPATCH(qk_row_simd);
  const int64_t rows = params.batch * params.tokens;
  parallel_rows(threads_, rows, 2 * params.heads * params.head_dim, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t b = r / params.tokens, t = r % params.tokens;
      QkRow row{q_weight.data(), nullptr, nullptr, params.head_dim, params.epsilon};
      if (params.cos != nullptr) {
        row.cos = params.cos + t * (params.head_dim / 2);
        row.sin = params.sin + t * (params.head_dim / 2);
      }
      float* q = f32(params.q) + b * params.q_strides.batch + t * params.q_strides.token;
      for (int64_t h = 0; h < params.heads; ++h) kernel(q + h * params.q_strides.head, row);
      row.weight = k_weight.data();
      float* k = f32(params.k) + b * params.k_strides.batch + t * params.k_strides.token;
      for (int64_t h = 0; h < params.heads; ++h) kernel(k + h * params.k_strides.head, row);
    }
  });
}

}  // namespace chipmunk
#endif  // HWY_ONCE
