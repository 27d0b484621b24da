#include "models/vae_tiling.h"

#include <algorithm>
#include <string>
#include <vector>

#include "chipmunk/error.h"
#include "ops/elementwise.h"
#include "ops/image.h"

namespace chipmunk {
namespace {

using TileRow = std::vector<Tensor>;

/// The part of a blended tile that the result keeps: the rest belongs to the next tile.
Tensor crop(const Tensor& tile, int64_t limit) {
  return tile.slice(1, 0, std::min(limit, tile.dim(1))).slice(2, 0, std::min(limit, tile.dim(2)));
}

Tensor join(const Context& context, const std::vector<TileRow>& rows, int64_t limit) {
  const Tensor& first = rows.front().front();
  int64_t height = 0, width = 0;
  for (const TileRow& row : rows) height += crop(row.front(), limit).dim(1);
  for (const Tensor& tile : rows.front()) width += crop(tile, limit).dim(2);
  Tensor result = context.empty({first.dim(0), height, width, first.dim(3)});
  int64_t y = 0;
  for (const TileRow& row : rows) {
    int64_t x = 0;
    int64_t row_height = 0;
    for (const Tensor& tile : row) {
      const Tensor part = crop(tile, limit);
      row_height = part.dim(1);
      ops::copy_into(context, part, result.slice(1, y, y + row_height).slice(2, x, x + part.dim(2)));
      x += part.dim(2);
    }
    y += row_height;
  }
  return result;
}

}  // namespace

Tensor process_tiled(const Context& context, const Tensor& x, const TileGeometry& geometry,
                     const std::function<Tensor(const Tensor& tile)>& process) {
  const int64_t step = static_cast<int64_t>(static_cast<double>(geometry.input_tile) * (1.0 - geometry.overlap));
  const int64_t blend = static_cast<int64_t>(static_cast<double>(geometry.output_tile) * geometry.overlap);
  const int64_t limit = geometry.output_tile - blend;
  if (step < 1 || limit < 1) {
    throw Error(ErrorCode::kInvalidArgument,
                "tiles of " + std::to_string(geometry.input_tile) + " and " + std::to_string(geometry.output_tile) +
                    " pixels are too small for an overlap of " + std::to_string(geometry.overlap),
                "vae tiling");
  }
  std::vector<TileRow> rows;
  for (int64_t top = 0; top < x.dim(1); top += step) {
    TileRow row;
    for (int64_t left = 0; left < x.dim(2); left += step) {
      const Tensor part = x.slice(1, top, std::min(top + geometry.input_tile, x.dim(1)))
                              .slice(2, left, std::min(left + geometry.input_tile, x.dim(2)));
      const Tensor tile = process(ops::to_dense(context, part, part.dtype()));
      if (!rows.empty()) ops::blend_into(context, rows.back()[row.size()], tile, 1, blend);
      if (!row.empty()) ops::blend_into(context, row.back(), tile, 2, blend);
      row.push_back(tile);
    }
    rows.push_back(std::move(row));
  }
  return join(context, rows, limit);
}

}  // namespace chipmunk
