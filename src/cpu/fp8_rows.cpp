#include "cpu/fp8_rows.h"

#include <vector>

#include "core/fp8_rows.h"
#include "cpu/cpu_backend.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"

namespace chipmunk {

namespace cpu {

Workspace round_to_fp8(const Context& context, int threads, const RowsOfX& of) {
  Workspace rounded(context, of.batch * of.rows * of.channels);
  parallel_rows(threads, of.batch * of.rows, of.channels, [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> values(static_cast<size_t>(of.channels));
    for (int64_t r = begin; r < end; ++r) {
      const float* row = f32(of.x) + r / of.rows * of.batch_stride + r % of.rows * of.row_stride;
      const Fp8RowScale scale = fp8_row_scale(row, DType::kF32, of.channels);
      quantize_fp8_row(row, DType::kF32, 0, of.channels, scale, values.data());
      dequantize_fp8_row(values.data(), scale.scale, of.channels, rounded.data() + r * of.channels);
    }
  });
  of.x.data = rounded.data();
  of.row_stride = of.channels;
  of.batch_stride = of.rows * of.channels;
  return rounded;
}

void scale_panel(const float* scales, int64_t columns, int64_t panel_width, int64_t depth, float* panel) {
  for (int64_t k = 0; k < depth; ++k) {
    for (int64_t c = 0; c < columns; ++c) panel[k * panel_width + c] *= scales[c];
  }
}

}  // namespace cpu

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
