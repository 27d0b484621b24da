#include <cmath>
#include <cstring>

#include "cpu/cpu_backend.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"

namespace chipmunk {

using namespace cpu;

void CpuBackend::upsample_nearest(const Context&, const UpsampleNearestParams& params) {
  require_f32(params.x.dtype, "upsample_nearest: x");
  require_f32(params.out.dtype, "upsample_nearest: out");
  const int64_t channels = params.channels, factor = params.factor;
  const int64_t out_row = params.width * factor * channels;
  const auto pixel_bytes = static_cast<size_t>(channels) * sizeof(float);
  parallel_rows(threads_, params.batch * params.height, out_row * factor, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* x = f32(params.x) + r * params.width * channels;
      float* out = f32(params.out) + r * factor * out_row;
      for (int64_t i = 0; i < params.width * factor; ++i) {
        std::memcpy(out + i * channels, x + i / factor * channels, pixel_bytes);
      }
      for (int64_t i = 1; i < factor; ++i) {
        std::memcpy(out + i * out_row, out, static_cast<size_t>(out_row) * sizeof(float));
      }
    }
  });
}

void CpuBackend::blend(const Context&, const BlendParams& params) {
  require_f32(params.previous.dtype, "blend: previous");
  require_f32(params.out.dtype, "blend: out");
  parallel_rows(threads_, params.outer * params.extent, params.inner, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t outer = r / params.extent, i = r % params.extent;
      const float weight = static_cast<float>(i) / static_cast<float>(params.extent);
      const float* previous = f32(params.previous) + outer * params.previous_outer_stride + i * params.previous_stride;
      float* out = f32(params.out) + outer * params.out_outer_stride + i * params.out_stride;
      for (int64_t c = 0; c < params.inner; ++c) out[c] = previous[c] * (1.0f - weight) + out[c] * weight;
    }
  });
}

void CpuBackend::quantize_image(const Context&, const QuantizeImageParams& params) {
  require_f32(params.x.dtype, "quantize_image: x");
  parallel_rows(threads_, params.count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float value = f32(params.x)[i] * 0.5f + 0.5f;
      // Written so that NaN takes the branch of 0.
      const float bounded = value > 0.0f ? (value < 1.0f ? value : 1.0f) : 0.0f;
      params.out[i] = static_cast<uint8_t>(std::nearbyint(bounded * 255.0f));
    }
  });
}

}  // namespace chipmunk
