#include "picture_tools.h"

#include <algorithm>
#include <cstddef>
#include <cstdlib>

#include "chipmunk/error.h"

namespace chipmunk::cli {
namespace {

size_t offset(const Frames& frames, int x, int y) {
  return 3 * (static_cast<size_t>(y) * static_cast<size_t>(frames.width) + static_cast<size_t>(x));
}

Frames blank(int width, int height) {
  Frames frames{width, height, 1, 0.0, {}};
  frames.rgb.resize(3 * static_cast<size_t>(width) * static_cast<size_t>(height));
  return frames;
}

}  // namespace

Frames side_by_side(const Frames& a, const Frames& b, int gain) {
  if (a.width != b.width || a.height != b.height || a.rgb.size() != b.rgb.size()) {
    throw Error(ErrorCode::kShapeMismatch, "expected two pictures of the same size", "side by side");
  }
  Frames joined = blank(3 * a.width, a.height);
  const size_t row_bytes = 3 * static_cast<size_t>(a.width);
  for (int y = 0; y < a.height; ++y) {
    const uint8_t* left = a.rgb.data() + offset(a, 0, y);
    const uint8_t* right = b.rgb.data() + offset(b, 0, y);
    uint8_t* out = joined.rgb.data() + offset(joined, 0, y);
    std::copy_n(left, row_bytes, out);
    std::copy_n(right, row_bytes, out + row_bytes);
    for (size_t i = 0; i < row_bytes; ++i) {
      out[2 * row_bytes + i] = static_cast<uint8_t>(std::min(255, gain * std::abs(int{left[i]} - int{right[i]})));
    }
  }
  return joined;
}

Frames shrink(const Frames& picture, int max_width) {
  const int factor = std::max(1, (picture.width + max_width - 1) / max_width);
  Frames small = blank(std::max(1, picture.width / factor), std::max(1, picture.height / factor));
  const int rows = std::min(factor, picture.height), columns = std::min(factor, picture.width);
  for (int y = 0; y < small.height; ++y) {
    for (int x = 0; x < small.width; ++x) {
      for (size_t c = 0; c < 3; ++c) {
        int sum = 0;
        for (int v = 0; v < rows; ++v) {
          for (int u = 0; u < columns; ++u) sum += picture.rgb[offset(picture, x * factor + u, y * factor + v) + c];
        }
        const int count = rows * columns;
        small.rgb[offset(small, x, y) + c] = static_cast<uint8_t>((sum + count / 2) / count);
      }
    }
  }
  return small;
}

}  // namespace chipmunk::cli
