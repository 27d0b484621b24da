#include "sparse/token_order.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include "chipmunk/error.h"

namespace chipmunk {
namespace {

constexpr const char* kWhere = "token order";

/// A half-open range along one axis.
struct Range {
  int64_t begin = 0, end = 0;
};

void check_sides(const VideoShape& shape, const char* what) {
  if (shape.frames < 1 || shape.height < 1 || shape.width < 1) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string(what) + ": expected sides of at least 1, found " + std::to_string(shape.frames) + "x" +
                    std::to_string(shape.height) + "x" + std::to_string(shape.width),
                kWhere);
  }
}

/// Positions are stored in 32 bits.
void check_count(int64_t tokens) {
  if (tokens < 0 || tokens > std::numeric_limits<int32_t>::max()) {
    throw Error(ErrorCode::kInvalidArgument, "expected at most 2^31 - 1 tokens, found " + std::to_string(tokens),
                kWhere);
  }
}

/// The same for a product that may not fit into 64 bits.
void check_volume(const VideoShape& shape) {
  int64_t tokens = 0;
  if (__builtin_mul_overflow(shape.frames, shape.height, &tokens) ||
      __builtin_mul_overflow(tokens, shape.width, &tokens)) {
    tokens = std::numeric_limits<int64_t>::max();
  }
  check_count(tokens);
}

TokenOrder with_inverse(std::vector<int32_t> order) {
  TokenOrder result;
  result.inverse.resize(order.size());
  for (size_t p = 0; p < order.size(); ++p) result.inverse[static_cast<size_t>(order[p])] = static_cast<int32_t>(p);
  result.order = std::move(order);
  return result;
}

/// Appends the tokens of a box in raster order.
void append_box(const VideoShape& video, Range frames, Range rows, Range columns, std::vector<int32_t>& order) {
  for (int64_t t = frames.begin; t < frames.end; ++t) {
    for (int64_t y = rows.begin; y < rows.end; ++y) {
      for (int64_t x = columns.begin; x < columns.end; ++x) {
        order.push_back(static_cast<int32_t>((t * video.height + y) * video.width + x));
      }
    }
  }
}

}  // namespace

TokenOrder TokenOrder::identity(int64_t tokens) {
  check_count(tokens);
  std::vector<int32_t> order(static_cast<size_t>(tokens));
  std::iota(order.begin(), order.end(), 0);
  return with_inverse(std::move(order));
}

TokenOrder TokenOrder::image_patches(int64_t height, int64_t width, int64_t outer, int64_t inner) {
  const VideoShape image{1, height, width};
  check_sides(image, "image");
  check_volume(image);
  if (inner < 1 || inner > outer) {
    throw Error(ErrorCode::kInvalidArgument,
                "patches: expected 1 <= inner <= outer, found outer " + std::to_string(outer) + " and inner " +
                    std::to_string(inner),
                kWhere);
  }
  // A patch larger than the image is the image: its size may then not overflow a coordinate.
  outer = std::min(outer, std::max(height, width));
  inner = std::min(inner, outer);
  std::vector<int32_t> order;
  order.reserve(static_cast<size_t>(image.volume()));
  for (int64_t row = 0; row < height; row += outer) {
    for (int64_t column = 0; column < width; column += outer) {
      const int64_t last_row = std::min(row + outer, height), last_column = std::min(column + outer, width);
      for (int64_t y = row; y < last_row; y += inner) {
        for (int64_t x = column; x < last_column; x += inner) {
          append_box(image, {0, 1}, {y, std::min(y + inner, last_row)}, {x, std::min(x + inner, last_column)}, order);
        }
      }
    }
  }
  return with_inverse(std::move(order));
}

TokenOrder TokenOrder::video_voxels(const VideoShape& video, const VideoShape& voxel) {
  check_sides(video, "video");
  check_sides(voxel, "voxel");
  check_volume(video);
  std::vector<int32_t> order;
  order.reserve(static_cast<size_t>(video.volume()));
  const VideoShape whole{video.frames - video.frames % voxel.frames, video.height - video.height % voxel.height,
                         video.width - video.width % voxel.width};
  for (int64_t t = 0; t < whole.frames; t += voxel.frames) {
    for (int64_t y = 0; y < whole.height; y += voxel.height) {
      for (int64_t x = 0; x < whole.width; x += voxel.width) {
        append_box(video, {t, t + voxel.frames}, {y, y + voxel.height}, {x, x + voxel.width}, order);
      }
    }
  }
  append_box(video, {whole.frames, video.frames}, {0, video.height}, {0, video.width}, order);
  append_box(video, {0, whole.frames}, {whole.height, video.height}, {0, video.width}, order);
  append_box(video, {0, whole.frames}, {0, whole.height}, {whole.width, video.width}, order);
  return with_inverse(std::move(order));
}

TokenOrder TokenOrder::surrounded_by(int64_t before, int64_t after) const {
  if (before < 0 || after < 0) {
    throw Error(ErrorCode::kInvalidArgument, "expected no negative number of tokens before or after", kWhere);
  }
  TokenOrder result = identity(before + size() + after);
  for (size_t p = 0; p < order.size(); ++p) {
    const size_t at = p + static_cast<size_t>(before);
    result.order[at] = order[p] + static_cast<int32_t>(before);
    result.inverse[at] = inverse[p] + static_cast<int32_t>(before);
  }
  return result;
}

}  // namespace chipmunk
