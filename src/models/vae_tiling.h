#pragma once

#include <cstdint>
#include <functional>

#include "core/context.h"

namespace chipmunk {

/// Sizes of tiles on both sides of a model that scales images. Sides in pixels of the input and of the output.
struct TileGeometry {
  int64_t input_tile, output_tile;
  double overlap;  ///< share of a tile that overlaps its neighbour
};

/// Runs `process` on overlapping tiles of x ([B, H, W, C]) and joins the results. Each result is cross-faded, in
/// row-major order, first with the tile above, then with the tile to the left, both already blended.
/// Source: the tiling of diffusers' AutoencoderKL. Throws kInvalidArgument for sizes that leave no tile.
Tensor process_tiled(const Context& context, const Tensor& x, const TileGeometry& geometry,
                     const std::function<Tensor(const Tensor& tile)>& process);

}  // namespace chipmunk
