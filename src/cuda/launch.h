#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "core/context.h"

/// What every file that launches kernels needs.
namespace chipmunk::cuda {

constexpr int kWarpSize = 32;
/// Largest size of a grid's y and z dimensions.
constexpr int64_t kMaxGridYZ = 65535;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

/// Whether batches follow each other without a gap: they are one batch of more rows then.
constexpr bool rows_continue(int64_t batch, int64_t rows, int64_t batch_stride, int64_t row_stride) {
  return batch == 1 || batch_stride == rows * row_stride;
}

/// The context's compute stream, its device made current.
cudaStream_t compute_stream(const Context& context);

/// The address, and every stride given in elements of element_bytes, are multiples of bytes.
template <class... Strides>
bool is_aligned(const void* data, size_t element_bytes, size_t bytes, Strides... strides) {
  return reinterpret_cast<uintptr_t>(data) % bytes == 0 &&
         ((static_cast<size_t>(strides) * element_bytes % bytes == 0) && ...);
}

}  // namespace chipmunk::cuda
