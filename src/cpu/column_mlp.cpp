#include <algorithm>
#include <optional>

#include "cpu/column_mlp_kernels.h"
#include "cpu/cpu_backend.h"
#include "cpu/fp8_rows.h"
#include "cpu/linear_kernels.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"

namespace chipmunk {
namespace {

using namespace cpu;

/// Features, or output channels, that one task takes: few enough for all threads to have work.
constexpr int64_t kTaskColumns = 256;
static_assert(kTaskColumns <= kLinearTileColumns);

/// One block of tokens and the features that it keeps.
struct TokenBlock {
  int64_t batch, first_row, rows;
  const int32_t* indices;  // [count] or null for all features
  int64_t count;
  float* differences;  // [rows, count]: new minus old activations
};

/// The blocks with their shares of one buffer for the differences.
class BlockList {
 public:
  BlockList(const Context& context, const ColumnMlpParams& params)
      : params_(params),
        per_sample_(divide_up(params.rows, params.block_rows)),
        most_(std::max<int32_t>(1, *std::max_element(params.counts, params.counts + params.batch * per_sample_))),
        differences_(context, params.batch * per_sample_ * params.block_rows * most_) {}

  int64_t size() const { return params_.batch * per_sample_; }
  int64_t most_features() const { return most_; }
  TokenBlock operator[](int64_t i) const {
    TokenBlock block{};
    block.batch = i / per_sample_;
    block.first_row = i % per_sample_ * params_.block_rows;
    block.rows = std::min(params_.block_rows, params_.rows - block.first_row);
    block.count = params_.counts[i];
    block.indices = block.count == params_.features ? nullptr : params_.indices + i * params_.capacity;
    block.differences = differences_.data() + i * params_.block_rows * most_;
    return block;
  }

 private:
  const ColumnMlpParams& params_;
  int64_t per_sample_, most_;
  Workspace differences_;
};

/// Runs the matmul of all rows of a block in tiles.
void multiply_rows(LinearTile tile, int64_t rows) {
  const int64_t step = divide_up(rows, divide_up(rows, kLinearTileRows));
  const LinearTile whole = tile;
  for (int64_t row = 0; row < rows; row += step) {
    tile.rows = std::min(step, rows - row);
    tile.x = whole.x + row * whole.x_stride;
    tile.out = whole.out + row * whole.out_stride;
    if (whole.epilogue.residual != nullptr) {
      tile.epilogue.residual = whole.epilogue.residual + row * whole.epilogue.residual_stride;
    }
    linear_tile(tile);
  }
}

/// What one thread works in.
struct Scratch {
  float* panels;  // packed weights of kTaskColumns columns
  float* rows;    // weight rows on their way into a panel
  float* bias;    // [kTaskColumns]
  float* scales;  // [kTaskColumns], of the weight's rows
  float* fresh;   // [block_rows, kTaskColumns]
  float* tile;

  static int64_t floats(int64_t width, int64_t depth, int64_t block_rows) {
    return (kTaskColumns + width) * depth + kTaskColumns * (2 + block_rows) + kLinearScratchFloats;
  }
  Scratch(float* memory, int64_t width, int64_t depth, int64_t block_rows) {
    panels = memory;
    rows = panels + kTaskColumns * depth;
    bias = rows + width * depth;
    scales = bias + kTaskColumns;
    fresh = scales + kTaskColumns;
    tile = fresh + kTaskColumns * block_rows;
  }
};

/// The activations of up to kTaskColumns of a block's features, from the `first` kept one on.
void renew_activations(const ColumnMlpParams& params, const float* bias, int64_t width, const TokenBlock& block,
                       int64_t first, const Scratch& scratch) {
  const int64_t count = std::min(kTaskColumns, block.count - first);
  const WeightRows weight{params.weight1.data, params.weight1.dtype, params.weight1_row_stride, block.indices};
  for (int64_t i = 0; i < count; ++i) {
    const int64_t feature = block.indices != nullptr ? block.indices[first + i] : first + i;
    if (bias != nullptr) scratch.bias[i] = bias[feature];
    if (params.weight1_scale != nullptr) scratch.scales[i] = params.weight1_scale[feature];
  }
  for (int64_t i = 0; i < count; i += width) {
    const int64_t columns = std::min(width, count - i);
    float* panel = scratch.panels + i * params.channels;
    pack_chosen_rows(weight, first + i, columns, params.channels, scratch.rows, panel);
    if (params.weight1_scale != nullptr) scale_panel(scratch.scales + i, columns, width, params.channels, panel);
  }
  LinearTile tile{};
  tile.x = f32(params.x) + block.batch * params.x_batch_stride + block.first_row * params.x_row_stride;
  tile.x_stride = params.x_row_stride;
  tile.panels = scratch.panels;
  tile.out = scratch.fresh;
  tile.out_stride = kTaskColumns;
  tile.columns = count;
  tile.depth = params.channels;
  tile.epilogue.bias = bias == nullptr ? nullptr : scratch.bias;
  tile.epilogue.activation = params.activation;
  tile.scratch = scratch.tile;
  multiply_rows(tile, block.rows);
  float* activations = f32(params.activations) + block.batch * params.activation_batch_stride +
                       block.first_row * params.activation_row_stride;
  // Without a list the features are in order, and so are those of this task.
  const int32_t* indices = block.indices == nullptr ? nullptr : block.indices + first;
  for (int64_t r = 0; r < block.rows; ++r) {
    exchange_activations(scratch.fresh + r * kTaskColumns, indices, count,
                         activations + r * params.activation_row_stride +
                             (block.indices == nullptr ? first * params.activation_feature_stride : 0),
                         params.activation_feature_stride, block.differences + r * block.count + first);
  }
}

/// Adds the differences times the second layer's weights to up to kTaskColumns output channels of a block.
void add_differences(const ColumnMlpParams& params, int64_t width, const TokenBlock& block, int64_t first,
                     const Scratch& scratch) {
  const int64_t count = std::min(kTaskColumns, params.out_channels - first);
  const WeightRows weight{params.weight2.data, params.weight2.dtype, params.weight2_row_stride, block.indices};
  for (int64_t i = 0; i < count; i += width) {
    pack_chosen_depth(weight, first + i, std::min(width, count - i), block.count, scratch.panels + i * block.count);
  }
  LinearTile tile{};
  tile.x = block.differences;
  tile.x_stride = block.count;
  tile.panels = scratch.panels;
  tile.out = f32(params.out) + (block.batch * params.rows + block.first_row) * params.out_channels + first;
  tile.out_stride = params.out_channels;
  tile.columns = count;
  tile.depth = block.count;
  tile.epilogue.residual = tile.out;
  tile.epilogue.residual_stride = params.out_channels;
  tile.epilogue.activation = Activation::kNone;
  tile.scratch = scratch.tile;
  multiply_rows(tile, block.rows);
}

}  // namespace

void CpuBackend::column_mlp(const Context& context, const ColumnMlpParams& given) {
  require_f32(given.x.dtype, "column_mlp: x");
  require_f32(given.activations.dtype, "column_mlp: activations");
  require_f32(given.out.dtype, "column_mlp: out");
  if (given.batch * given.rows == 0 || given.features == 0) return;
  ColumnMlpParams params = given;
  std::optional<Workspace> rounded;
  if (params.weight1_scale != nullptr) {
    rounded = round_to_fp8(
        context, threads_,
        {params.x, params.batch, params.rows, params.channels, params.x_batch_stride, params.x_row_stride});
  }
  const F32Vector bias(context, params.bias1, params.features);
  const BlockList blocks(context, params);
  const int64_t width = linear_geometry().panel_width;
  const int64_t depth = std::max(params.channels, blocks.most_features());
  const int64_t scratch_floats = Scratch::floats(width, depth, params.block_rows);
  const Workspace memory(context, threads_ * scratch_floats);
  const auto scratch_of = [&](int worker) {
    return Scratch(memory.data() + worker * scratch_floats, width, depth, params.block_rows);
  };

  const int64_t feature_tasks = divide_up(blocks.most_features(), kTaskColumns);
  parallel_for(threads_, blocks.size() * feature_tasks, [&](int64_t task, int worker) {
    const TokenBlock block = blocks[task / feature_tasks];
    const int64_t first = task % feature_tasks * kTaskColumns;
    if (first < block.count) renew_activations(params, bias.data(), width, block, first, scratch_of(worker));
  });
  const int64_t channel_tasks = divide_up(params.out_channels, kTaskColumns);
  parallel_for(threads_, blocks.size() * channel_tasks, [&](int64_t task, int worker) {
    const TokenBlock block = blocks[task / channel_tasks];
    if (block.count == 0) return;
    add_differences(params, width, block, task % channel_tasks * kTaskColumns, scratch_of(worker));
  });
}

}  // namespace chipmunk
