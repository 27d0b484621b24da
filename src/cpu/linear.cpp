#include <algorithm>
#include <optional>
#include <vector>

#include "cpu/cpu_backend.h"
#include "cpu/fp8_rows.h"
#include "cpu/linear_kernels.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"

namespace chipmunk {
namespace {

using namespace cpu;

/// Packed weights held at a time, unless one panel needs more: far below a layer's f32 copy.
constexpr int64_t kPanelBytes = int64_t{32} << 20;
/// Tiles per thread between two barriers, so that threads end at about the same time.
constexpr int64_t kTilesPerThread = 4;

/// How a matmul is cut into tiles and into runs of output features that are packed together.
struct LinearPlan {
  int64_t panel_width, panel_floats;
  int64_t tile_rows, row_tiles;  // of one sample
  int64_t columns_at_once;
};

LinearPlan plan_linear(const LinearParams& params, int threads) {
  const LinearGeometry geometry = linear_geometry();
  LinearPlan plan{};
  plan.panel_width = geometry.panel_width;
  plan.panel_floats = geometry.panel_width * std::max<int64_t>(params.in_features, 1);
  // Equal tiles: a last one of few rows would read all weights for little work.
  plan.row_tiles = divide_up(params.rows, kLinearTileRows);
  plan.tile_rows = round_up(divide_up(params.rows, plan.row_tiles), geometry.row_step);
  plan.row_tiles = divide_up(params.rows, plan.tile_rows);
  const int64_t wanted = divide_up(kTilesPerThread * threads, params.batch * plan.row_tiles) * kLinearTileColumns;
  const int64_t affordable = kPanelBytes / static_cast<int64_t>(sizeof(float)) / plan.panel_floats * plan.panel_width;
  const int64_t all = round_up(params.out_features, plan.panel_width);
  int64_t columns = std::min({wanted, affordable, all});
  if (columns > kLinearTileColumns && columns < all)
    columns = round_up(columns - kLinearTileColumns + 1, kLinearTileColumns);
  plan.columns_at_once = std::max(columns, plan.panel_width);
  return plan;
}

const float* offset_or_null(const In& in, int64_t offset) { return in.data == nullptr ? nullptr : f32(in) + offset; }

void run_few_rows(int threads, const LinearParams& params, const float* bias) {
  FewRows few{};
  few.bias = bias;
  few.weight = params.weight.data;
  few.weight_dtype = params.weight.dtype;
  few.weight_stride = params.weight_row_stride;
  few.depth = params.in_features;
  few.activation = params.activation;
  for (int64_t b = 0; b < params.batch; ++b) {
    for (int64_t t = 0; t < params.rows; ++t) {
      const int64_t r = few.rows++;
      few.x[r] = f32(params.x) + b * params.x_batch_stride + t * params.x_row_stride;
      few.out[r] = f32(params.out) + b * params.out_batch_stride + t * params.out_row_stride;
      few.residual[r] =
          offset_or_null(params.residual, b * params.residual_batch_stride + t * params.residual_row_stride);
      few.gate[r] = offset_or_null(params.gate, b * params.gate_batch_stride);
    }
  }
  parallel_rows(threads, params.out_features, params.in_features,
                [&](int64_t begin, int64_t end) { linear_few_rows(few, begin, end); });
}

/// Multiplies all rows with output features [first, first + columns), whose packed weights are `panels`.
void run_panels(int threads, const LinearParams& params, const LinearPlan& plan, const float* bias, const float* panels,
                int64_t first, int64_t columns, float* scratch) {
  const int64_t column_tiles = divide_up(columns, kLinearTileColumns);
  parallel_for(threads, params.batch * plan.row_tiles * column_tiles, [&](int64_t task, int worker) {
    const int64_t b = task / (plan.row_tiles * column_tiles);
    const int64_t row = task / column_tiles % plan.row_tiles * plan.tile_rows;
    const int64_t column = task % column_tiles * kLinearTileColumns;
    const int64_t feature = first + column;
    LinearTile tile{};
    tile.x = f32(params.x) + b * params.x_batch_stride + row * params.x_row_stride;
    tile.x_stride = params.x_row_stride;
    tile.panels = panels + column * params.in_features;
    tile.out = f32(params.out) + b * params.out_batch_stride + row * params.out_row_stride + feature;
    tile.out_stride = params.out_row_stride;
    tile.rows = std::min(plan.tile_rows, params.rows - row);
    tile.columns = std::min(kLinearTileColumns, columns - column);
    tile.depth = params.in_features;
    tile.epilogue.bias = bias == nullptr ? nullptr : bias + feature;
    tile.epilogue.gate = offset_or_null(params.gate, b * params.gate_batch_stride + feature);
    tile.epilogue.residual =
        offset_or_null(params.residual, b * params.residual_batch_stride + row * params.residual_row_stride + feature);
    tile.epilogue.residual_stride = params.residual_row_stride;
    tile.epilogue.activation = params.activation;
    tile.scratch = scratch + worker * kLinearScratchFloats;
    linear_tile(tile);
  });
}

/// Without gates the samples of a batch are only more rows, if they lie at equal distances.
LinearParams merge_batch(const LinearParams& params) {
  const bool mergeable =
      params.gate.data == nullptr && params.x_batch_stride == params.rows * params.x_row_stride &&
      params.out_batch_stride == params.rows * params.out_row_stride &&
      (params.residual.data == nullptr || params.residual_batch_stride == params.rows * params.residual_row_stride);
  if (!mergeable || params.batch == 0) return params;
  LinearParams merged = params;
  merged.rows *= params.batch;
  merged.batch = 1;
  return merged;
}

}  // namespace

void CpuBackend::linear(const Context& context, const LinearParams& params) {
  multiply(context, params);
  if (params.heads.heads > 0) qk_norm_rope(context, qk_norm_rope_of(params));
}

void CpuBackend::multiply(const Context& context, const LinearParams& given) {
  require_f32(given.x.dtype, "linear: x");
  require_f32(given.gate.dtype, "linear: gate");
  require_f32(given.residual.dtype, "linear: residual");
  require_f32(given.out.dtype, "linear: out");
  if (given.batch * given.rows == 0 || given.out_features == 0) return;
  LinearParams params = given;
  std::optional<Workspace> rounded;
  if (params.weight_scale != nullptr) {
    rounded = round_to_fp8(
        context, threads_,
        {params.x, params.batch, params.rows, params.in_features, params.x_batch_stride, params.x_row_stride});
  }
  params = merge_batch(params);
  const F32Vector bias(context, params.bias, params.out_features);
  if (params.batch * params.rows <= kMaxFewRows && params.weight_scale == nullptr)
    return run_few_rows(threads_, params, bias.data());

  const LinearPlan plan = plan_linear(params, threads_);
  const Workspace panels(context, divide_up(plan.columns_at_once, plan.panel_width) * plan.panel_floats);
  const Workspace scratch(context, threads_ * kLinearScratchFloats);
  for (int64_t first = 0; first < params.out_features; first += plan.columns_at_once) {
    const int64_t columns = std::min(plan.columns_at_once, params.out_features - first);
    parallel_for(threads_, divide_up(columns, plan.panel_width), [&](int64_t i, int) {
      const int64_t feature = first + i * plan.panel_width;
      const auto offset = static_cast<size_t>(feature * params.weight_row_stride) * size_of(params.weight.dtype);
      const int64_t width = std::min(plan.panel_width, params.out_features - feature);
      float* panel = panels.data() + i * plan.panel_floats;
      pack_weights(static_cast<const char*>(params.weight.data) + offset, params.weight.dtype, params.weight_row_stride,
                   width, params.in_features, panel);
      if (params.weight_scale != nullptr) {
        scale_panel(params.weight_scale + feature, width, plan.panel_width, params.in_features, panel);
      }
    });
    run_panels(threads_, params, plan, bias.data(), panels.data(), first, columns, scratch.data());
  }
}

}  // namespace chipmunk
