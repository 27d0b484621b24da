#include <cmath>

#include "cpu/convert.h"
#include "cpu/cpu_backend.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"

namespace chipmunk {

using namespace cpu;

void CpuBackend::embedding(const Context&, const EmbeddingParams& params) {
  require_f32(params.out.dtype, "embedding: out");
  const auto element = static_cast<int64_t>(size_of(params.table.dtype));
  const auto* table = static_cast<const char*>(params.table.data);
  parallel_rows(threads_, params.count, params.channels, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      upcast(table + params.indices[i] * params.channels * element, params.table.dtype,
             f32(params.out) + i * params.channels, params.channels);
    }
  });
}

void CpuBackend::timestep_embedding(const Context&, const TimestepEmbeddingParams& params) {
  require_f32(params.out.dtype, "timestep_embedding: out");
  const int64_t half = params.channels / 2;
  const auto exponent_step = static_cast<float>(-std::log(static_cast<double>(params.max_period)));
  for (int64_t b = 0; b < params.batch; ++b) {
    float* out = f32(params.out) + b * params.channels;
    for (int64_t i = 0; i < half; ++i) {
      const float frequency = std::exp(exponent_step * static_cast<float>(i) / static_cast<float>(half));
      const float angle = params.arguments[b] * frequency;
      out[i] = std::cos(angle);
      out[half + i] = std::sin(angle);
    }
  }
}

}  // namespace chipmunk
