#include "cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/group_norm.cpp"
#include <hwy/foreach_target.h>
// foreach_target comes first.
#include <hwy/highway.h>

#include "cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace chipmunk::cpu {
namespace HWY_NAMESPACE {

/// sums[c] = sum over the pixels of x - center.
void channel_sums_simd(const float* x, const float* center, int64_t pixels, int64_t channels, float* sums) {
  const FloatTag d;
  for_each_vector(channels, [&](int64_t c, auto load, auto store) HWY_ATTR {
    const FloatVec middle = load(center + c);
    FloatVec sum = hn::Zero(d);
    for (int64_t p = 0; p < pixels; ++p) sum = hn::Add(sum, hn::Sub(load(x + p * channels + c), middle));
    store(sum, sums + c);
  });
}

/// sums[c] = sum over the pixels of (x - center)^2.
void channel_squares_simd(const float* x, const float* center, int64_t pixels, int64_t channels, float* sums) {
  const FloatTag d;
  for_each_vector(channels, [&](int64_t c, auto load, auto store) HWY_ATTR {
    const FloatVec middle = load(center + c);
    FloatVec sum = hn::Zero(d);
    for (int64_t p = 0; p < pixels; ++p) {
      const FloatVec deviation = hn::Sub(load(x + p * channels + c), middle);
      sum = hn::MulAdd(deviation, deviation, sum);
    }
    store(sum, sums + c);
  });
}

/// out = activation((x - center) * scale + bias) per channel.
void channel_affine_simd(const float* x, const float* center, const float* scale, const float* bias, int64_t pixels,
                         int64_t channels, Activation activation, float* out) {
  const FloatTag d;
  with_activation(activation, [=](auto function) HWY_ATTR {
    for (int64_t p = 0; p < pixels; ++p) {
      for_each_vector(channels, [&](int64_t c, auto load, auto store) HWY_ATTR {
        const FloatVec y =
            hn::MulAdd(hn::Sub(load(x + p * channels + c), load(center + c)), load(scale + c), load(bias + c));
        store(function(d, y), out + p * channels + c);
      });
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace chipmunk::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>

#include "cpu/cpu_backend.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"

namespace chipmunk {
namespace cpu {
HWY_EXPORT(channel_sums_simd);
HWY_EXPORT(channel_squares_simd);
HWY_EXPORT(channel_affine_simd);
}  // namespace cpu

namespace {

using namespace cpu;

/// A run of pixels whose partial sums stay in f32; more than that are added in double. Short enough that f32 loses
/// nothing that matters, long enough to be worth a task.
constexpr int64_t kPixelsPerChunk = 256;

/// values[g] = sum over the group's channels and all chunks, in double and in a fixed order.
void reduce_groups(const float* partial, int64_t chunks, const GroupNormParams& params, double* values) {
  const int64_t per_group = params.channels / params.groups;
  std::fill_n(values, params.groups, 0.0);
  for (int64_t i = 0; i < chunks; ++i) {
    for (int64_t c = 0; c < params.channels; ++c) values[c / per_group] += partial[i * params.channels + c];
  }
}

}  // namespace

void CpuBackend::group_norm(const Context& context, const GroupNormParams& params) {
  require_f32(params.x.dtype, "group_norm: x");
  require_f32(params.out.dtype, "group_norm: out");
  const int64_t channels = params.channels, pixels = params.pixels;
  if (channels == 0 || pixels == 0) return;
  const F32Vector weight(context, params.weight, channels);
  const F32Vector bias(context, params.bias, channels);
  const int64_t chunks = divide_up(pixels, kPixelsPerChunk);
  const Workspace partial(context, chunks * channels);
  const Workspace center(context, channels), scale(context, channels);
  const Workspace sums(context, 2 * params.groups);
  double* group_values = reinterpret_cast<double*>(sums.data());
  const double count = static_cast<double>(pixels) * static_cast<double>(channels / params.groups);
  const auto sum_kernel = HWY_DYNAMIC_DISPATCH(channel_sums_simd);
  const auto square_kernel = HWY_DYNAMIC_DISPATCH(channel_squares_simd);
  const auto affine_kernel = HWY_DYNAMIC_DISPATCH(channel_affine_simd);

  for (int64_t b = 0; b < params.batch; ++b) {
    const float* x = f32(params.x) + b * pixels * channels;
    float* out = f32(params.out) + b * pixels * channels;
    const auto for_chunks = [&](const auto& body) {
      parallel_for(threads_, chunks, [&](int64_t i, int) {
        const int64_t begin = i * kPixelsPerChunk;
        body(i, begin, std::min(kPixelsPerChunk, pixels - begin));
      });
    };
    std::fill_n(center.data(), channels, 0.0f);
    for_chunks([&](int64_t i, int64_t begin, int64_t n) {
      sum_kernel(x + begin * channels, center.data(), n, channels, partial.data() + i * channels);
    });
    reduce_groups(partial.data(), chunks, params, group_values);
    for (int64_t c = 0; c < channels; ++c) {
      center.data()[c] = static_cast<float>(group_values[c * params.groups / channels] / count);
    }
    for_chunks([&](int64_t i, int64_t begin, int64_t n) {
      square_kernel(x + begin * channels, center.data(), n, channels, partial.data() + i * channels);
    });
    reduce_groups(partial.data(), chunks, params, group_values);
    for (int64_t c = 0; c < channels; ++c) {
      const double variance = group_values[c * params.groups / channels] / count;
      scale.data()[c] = static_cast<float>(weight.data()[c] / std::sqrt(variance + params.epsilon));
    }
    for_chunks([&](int64_t, int64_t begin, int64_t n) {
      affine_kernel(x + begin * channels, center.data(), scale.data(), bias.data(), n, channels, params.activation,
                    out + begin * channels);
    });
  }
}

}  // namespace chipmunk
#endif  // HWY_ONCE
