#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "params.h"

namespace chipmunk::cpu {

/// What follows the matmul, for a block of output whose first row and column the pointers address; null where absent.
struct LinearEpilogue {
  const float* bias;      // [columns]
  const float* gate;      // [columns]
  const float* residual;  // [rows, columns], row stride residual_stride
  int64_t residual_stride;
  Activation activation;
};

/// Largest block of output that one call of linear_tile computes. Its sums and its rows of x take about 0.9 MB: they
/// stay in a second-level cache, and each packed weight that comes from further away is used for all its rows.
/// 294 is a multiple of the register tile's rows on AVX-512 (14) and AVX2 (6).
constexpr int64_t kLinearTileRows = 294;
constexpr int64_t kLinearTileColumns = 512;
/// Depth of one pass: a packed panel of it (32 KB at AVX-512) stays in the first-level cache while all rows go by.
constexpr int64_t kLinearTileDepth = 256;
/// A power-of-two stride would put the rows of a register tile into the same cache set.
constexpr int64_t kLinearRowPad = 16;
constexpr int64_t kLinearScratchFloats =
    kLinearTileRows * (kLinearTileColumns + kLinearRowPad + kLinearTileDepth + kLinearRowPad);

/// One block of out = residual + gate * activation(x weight^T + bias).
struct LinearTile {
  const float* x;  // [rows, depth], row stride x_stride
  int64_t x_stride;
  const float* panels;  // packed weights of the block's first column onwards (see pack_weights)
  float* out;           // [rows, columns], row stride out_stride
  int64_t out_stride;
  int64_t rows, columns, depth;
  LinearEpilogue epilogue;
  float* scratch;  // [kLinearScratchFloats], the calling thread's own
};

/// Sizes that follow from the machine's registers.
struct LinearGeometry {
  int64_t panel_width;  ///< columns of one packed panel; divides kLinearTileColumns
  int64_t row_step;     ///< blocks of a multiple of this many rows waste nothing; divides kLinearTileRows
};
LinearGeometry linear_geometry();
/// Packs up to panel_width rows of a weight ([rows, depth], row stride `stride`) as [depth][panel_width] floats.
void pack_weights(const void* weight, DType dtype, int64_t stride, int64_t rows, int64_t depth, float* panel);
void linear_tile(const LinearTile& tile);

/// Rows that linear_few_rows takes at most.
constexpr int64_t kMaxFewRows = 8;

/// A few rows against output features [begin, end): bound by reading the weights, which happens once, in their dtype.
struct FewRows {
  const float* x[kMaxFewRows];         // [depth]
  float* out[kMaxFewRows];             // [out_features]
  const float* residual[kMaxFewRows];  // [out_features] or null
  const float* gate[kMaxFewRows];      // [out_features] or null
  const float* bias;                   // [out_features] or null
  const void* weight;                  // [out_features, depth], row stride weight_stride
  DType weight_dtype;
  int64_t weight_stride;
  int64_t rows, depth;
  Activation activation;
};
void linear_few_rows(const FewRows& few, int64_t begin, int64_t end);

}  // namespace chipmunk::cpu
