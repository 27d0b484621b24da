#pragma once

#include <cstdint>
#include <vector>

namespace chipmunk {

/// Sizes along (frame, row, column), in tokens or in voxels.
struct VideoShape {
  int64_t frames = 0, height = 0, width = 0;

  int64_t volume() const { return frames * height * width; }
  bool operator==(const VideoShape&) const = default;
};

/// Tokens of one voxel of video: 192 = the query rows that one block of the Hopper kernel takes.
inline constexpr VideoShape kVideoVoxel{4, 6, 8};

/// A permutation of tokens, made once per generation so that neighbours in the picture are neighbours in memory and a
/// group of query rows is a compact patch.
struct TokenOrder {
  std::vector<int32_t> order;    ///< order[p] = raster index of the token at position p
  std::vector<int32_t> inverse;  ///< inverse[order[p]] = p

  int64_t size() const { return static_cast<int64_t>(order.size()); }

  /// Every token where it is.
  static TokenOrder identity(int64_t tokens);

  /// Two levels of square patches over a height x width image: outer patches row by row, inner patches row by row in
  /// each, tokens row by row in those. Where a side is no multiple of a patch, the patches at its lower or right border
  /// are cut off there. Any sides >= 1; 1 <= inner <= outer, or kInvalidArgument. Source: Chipmunk, "patchify".
  static TokenOrder image_patches(int64_t height, int64_t width, int64_t outer = 8, int64_t inner = 4);

  /// The whole voxels of a video, frame-major, raster order inside each; then the tokens outside of them in raster
  /// order: the frames past the last voxel, then the rows, then the columns. Any sides >= 1, or kInvalidArgument.
  static TokenOrder video_voxels(const VideoShape& video, const VideoShape& voxel = kVideoVoxel);

  /// This order for the middle of a longer sequence whose first `before` and last `after` tokens (text) stay in place.
  TokenOrder surrounded_by(int64_t before, int64_t after) const;
};

}  // namespace chipmunk
