#include "core/column_selection.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "core/float_formats.h"
#include "core/random_columns.h"
#include "cpu/cpu_backend.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"

namespace chipmunk {
namespace {

using namespace cpu;

using Bytes = std::vector<uint8_t>;

template <class T>
std::span<const T> row_span(const T* rows, int64_t row, int64_t columns) {
  return {rows + row * columns, static_cast<size_t>(columns)};
}

/// The random columns of one row: given ones, drawn ones, or both; empty for none.
std::span<const uint8_t> random_row(const uint8_t* given, int64_t row, int64_t columns, const RandomRow& name,
                                    uint64_t threshold, Bytes& buffer) {
  if (threshold == 0) return given == nullptr ? std::span<const uint8_t>() : row_span(given, row, columns);
  buffer.assign(static_cast<size_t>(columns), 0);
  draw_random(name, threshold, buffer);
  for (size_t j = 0; given != nullptr && j < buffer.size(); ++j)
    buffer[j] |= given[static_cast<size_t>(row * columns) + j];
  return buffer;
}

/// Writes the ids of a mask, then the lowest others until the count is a multiple (a row without columns stays empty);
/// or the count that stands for all of them where they do not fit.
void write_indices(const Bytes& mask, int64_t multiple_of, int64_t capacity, int32_t* indices, int32_t* count) {
  const auto columns = static_cast<int64_t>(mask.size());
  const int64_t kept = columns - std::count(mask.begin(), mask.end(), uint8_t{0});
  const int64_t padded = std::min(round_up(kept, multiple_of), columns);
  *count = static_cast<int32_t>(padded > capacity ? columns : padded);
  if (padded > capacity) return;
  for (size_t j = 0; j < mask.size(); ++j) {
    if (mask[j] != 0) *indices++ = static_cast<int32_t>(j);
  }
  int64_t missing = padded - kept;
  for (size_t j = 0; missing > 0; ++j) {
    if (mask[j] == 0) *indices++ = static_cast<int32_t>(j), --missing;
  }
}

}  // namespace

void CpuBackend::select_columns(const Context&, const SelectColumnsParams& params) {
  const int64_t rows = params.batch * params.heads * params.groups, columns = params.key_tokens;
  const ColumnRule rule{params.top_k, params.room_keys};
  const Bytes nothing(params.static_columns == nullptr ? static_cast<size_t>(columns) : 0);
  parallel_for(threads_, rows, [&](int64_t row, int) {
    RandomRow name = params.random;
    name.batch = row / params.groups / params.heads;
    name.head = row / params.groups % params.heads;
    name.group = row % params.groups;
    Bytes drawn, mask(static_cast<size_t>(columns));
    const std::span<const uint8_t> fixed =
        params.static_columns == nullptr
            ? std::span<const uint8_t>(nothing)
            : row_span(params.static_columns + name.head * params.static_head_stride, name.group, columns);
    chipmunk::select_columns(row_span(params.column_sums, row, columns),
                             random_row(params.random_columns, row, columns, name, params.random_threshold, drawn),
                             fixed, rule, mask);
    write_indices(mask, params.multiple_of, params.capacity, params.indices + row * params.capacity,
                  params.counts + row);
  });
}

void CpuBackend::block_mean(const Context&, const BlockMeanParams& params) {
  require_f32(params.x.dtype, "block_mean: x");
  require_f32(params.out.dtype, "block_mean: out");
  const int64_t blocks = divide_up(params.rows, params.block_rows);
  parallel_for(threads_, params.batch * blocks, [&](int64_t task, int) {
    const int64_t first = task % blocks * params.block_rows;
    const int64_t rows = std::min(params.block_rows, params.rows - first);
    const float* x = f32(params.x) + task / blocks * params.x_batch_stride + first * params.x_row_stride;
    float* out = f32(params.out) + task * params.channels;
    std::fill_n(out, params.channels, 0.0f);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < params.channels; ++c) out[c] += x[r * params.x_row_stride + c];
    }
    for (int64_t c = 0; c < params.channels; ++c) out[c] /= static_cast<float>(rows);
  });
}

void CpuBackend::block_mean_linear(const Context& context, const BlockMeanLinearParams& params) {
  for (int i = 0; i < params.count; ++i) {
    block_mean(context, params.parts[i].mean);
    linear(context, params.parts[i].linear);
  }
}

void CpuBackend::select_features(const Context&, const SelectFeaturesParams& params) {
  const int64_t features = params.features;
  parallel_for(threads_, params.batch * params.blocks, [&](int64_t row, int) {
    RandomRow name = params.random;
    name.batch = row / params.blocks;
    name.group = row % params.blocks;
    const int64_t first = name.batch * params.mean_blocks + name.group * params.means_per_block;
    const int64_t last = std::min(first + params.means_per_block, (name.batch + 1) * params.mean_blocks);
    std::vector<float> drift(static_cast<size_t>(features), 0.0f);
    const auto mean = [&](int64_t r, int64_t f) {
      return load_as_float(params.means.data, params.means.dtype, r * features + f);
    };
    for (int64_t r = first; r < last; ++r) {
      const float* cached = params.cached_means + r * features;
      for (int64_t f = 0; f < features; ++f) drift[static_cast<size_t>(f)] += std::abs(mean(r, f) - cached[f]);
    }
    if (params.drift != nullptr) std::copy(drift.begin(), drift.end(), params.drift + row * features);
    Bytes drawn, mask(static_cast<size_t>(features));
    chipmunk::select_features(drift,
                              random_row(params.random_features, row, features, name, params.random_threshold, drawn),
                              params.top_k, params.multiple_of, mask);
    write_indices(mask, 1, params.capacity, params.indices + row * params.capacity, params.counts + row);
    const bool all = params.counts[row] == features;
    for (int64_t r = first; r < last; ++r) {
      for (int64_t f = 0; f < features; ++f) {
        if (all || mask[static_cast<size_t>(f)] != 0) params.cached_means[r * features + f] = mean(r, f);
      }
    }
  });
}

}  // namespace chipmunk
