#include "core/fp8_rows.h"

#include "cpu/cpu_backend.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"

namespace chipmunk {

using namespace cpu;

void CpuBackend::quantize_rows(const Context&, const QuantizeRowsParams& params) {
  require_f32(params.x.dtype, "quantize_rows: x");
  auto* out = static_cast<uint8_t*>(params.out.data);
  parallel_rows(threads_, params.batch * params.rows, params.channels, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* x = f32(params.x) + r / params.rows * params.x_batch_stride + r % params.rows * params.x_row_stride;
      const Fp8RowScale scale = fp8_row_scale(x, DType::kF32, params.channels);
      params.scales[r / params.rows * params.scale_batch_stride + r % params.rows] = scale.scale;
      quantize_fp8_row(x, DType::kF32, 0, params.channels, scale, out + r * params.channels);
    }
  });
}

void CpuBackend::dequantize_rows(const Context&, const DequantizeRowsParams& params) {
  require_f32(params.out.dtype, "dequantize_rows: out");
  const auto* x = static_cast<const uint8_t*>(params.x.data);
  parallel_rows(threads_, params.rows, params.channels, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      dequantize_fp8_row(x + r * params.x_row_stride, params.scales[r], params.channels,
                         f32(params.out) + r * params.channels);
    }
  });
}

}  // namespace chipmunk
