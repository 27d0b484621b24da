#include "core/fp8_rows.h"

#include <algorithm>
#include <array>

#include "core/float_formats.h"

namespace chipmunk {
namespace {

using F8Values = std::array<float, 256>;

F8Values f8_values(DType dtype) {
  F8Values values{};
  for (size_t i = 0; i < values.size(); ++i) {
    const auto bits = static_cast<uint8_t>(i);
    values[i] = load_as_float(&bits, dtype, 0);
  }
  return values;
}

/// Calls body(load), load(i) being element i of the row.
template <class Body>
void with_loads(const void* row, DType dtype, const Body& body) {
  // Decoding takes several instructions an element, a table one.
  static const F8Values e4m3 = f8_values(DType::kF8E4M3), e5m2 = f8_values(DType::kF8E5M2);
  const auto* bytes = static_cast<const uint8_t*>(row);
  switch (dtype) {
    case DType::kF32: return body([values = static_cast<const float*>(row)](int64_t i) { return values[i]; });
    case DType::kBF16:
      return body([values = static_cast<const uint16_t*>(row)](int64_t i) { return bf16_to_float(values[i]); });
    case DType::kF8E4M3: return body([bytes](int64_t i) { return e4m3[bytes[i]]; });
    case DType::kF8E5M2: return body([bytes](int64_t i) { return e5m2[bytes[i]]; });
    default: return body([row, dtype](int64_t i) { return load_as_float(row, dtype, i); });
  }
}

}  // namespace

Fp8RowScale fp8_row_scale(const void* row, DType dtype, int64_t n) {
  uint32_t largest = 0;
  with_loads(row, dtype, [&](const auto& load) {
    for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::bit_cast<uint32_t>(load(i)) & 0x7fffffffu);
  });
  return fp8_row_scale(largest);
}

void quantize_fp8_row(const void* row, DType dtype, int64_t begin, int64_t end, const Fp8RowScale& scale,
                      uint8_t* out) {
  with_loads(row, dtype, [=, inverse = scale.inverse](const auto& load) {
    for (int64_t i = begin; i < end; ++i) out[i - begin] = float_to_f8_e4m3_saturating(load(i) * inverse);
  });
}

void dequantize_fp8_row(const uint8_t* values, float factor, int64_t n, float* out) {
  with_loads(values, DType::kF8E4M3, [=](const auto& load) {
    for (int64_t i = 0; i < n; ++i) out[i] = factor * load(i);
  });
}

}  // namespace chipmunk
