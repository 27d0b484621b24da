#include "evaluation/contact_sheet.h"

#include <algorithm>
#include <array>

namespace chipmunk {
namespace {

constexpr int kColumns = 20, kCell = 104, kFrame = 4;

/// The mean of the picture's pixels that fall onto one pixel of the cell.
std::array<uint8_t, 3> mean_of(const Frames& picture, int x, int y, int width, int height) {
  const auto range = [](int i, int target, int source) {
    const int begin = static_cast<int>(int64_t{i} * source / target);
    return std::pair{begin, std::max(begin + 1, static_cast<int>(int64_t{i + 1} * source / target))};
  };
  const auto [left, right] = range(x, width, picture.width);
  const auto [top, bottom] = range(y, height, picture.height);
  std::array<int64_t, 3> sum{};
  for (int row = top; row < bottom; ++row) {
    for (int column = left; column < right; ++column) {
      const size_t at =
          (static_cast<size_t>(row) * static_cast<size_t>(picture.width) + static_cast<size_t>(column)) * 3;
      for (size_t c = 0; c < 3; ++c) sum[c] += picture.rgb[at + c];
    }
  }
  const int64_t count = int64_t{right - left} * (bottom - top);
  std::array<uint8_t, 3> mean{};
  for (size_t c = 0; c < 3; ++c) mean[c] = static_cast<uint8_t>((sum[c] + count / 2) / count);
  return mean;
}

}  // namespace

ContactSheet::ContactSheet(int count) : columns_(std::clamp(count, 1, kColumns)) {
  sheet_.width = columns_ * kCell;
  sheet_.height = std::max(1, (count + columns_ - 1) / columns_) * kCell;
  sheet_.rgb.assign(static_cast<size_t>(sheet_.width) * static_cast<size_t>(sheet_.height) * 3, 255);
}

void ContactSheet::add(const Frames& picture, bool correct) {
  const int left = added_ % columns_ * kCell, top = added_ / columns_ * kCell;
  ++added_;
  constexpr int kRoom = kCell - 2 * kFrame;
  const int longer = std::max(picture.width, picture.height);
  const int width = std::max(1, picture.width * kRoom / longer), height = std::max(1, picture.height * kRoom / longer);
  const std::array<uint8_t, 3> frame =
      correct ? std::array<uint8_t, 3>{30, 160, 60} : std::array<uint8_t, 3>{210, 30, 40};
  for (int y = 0; y < height + 2 * kFrame; ++y) {
    for (int x = 0; x < width + 2 * kFrame; ++x) {
      const int px = x - kFrame, py = y - kFrame;
      const bool inside = px >= 0 && py >= 0 && px < width && py < height;
      const std::array<uint8_t, 3> rgb = inside ? mean_of(picture, px, py, width, height) : frame;
      const size_t at =
          (static_cast<size_t>(top + y) * static_cast<size_t>(sheet_.width) + static_cast<size_t>(left + x)) * 3;
      std::copy(rgb.begin(), rgb.end(), sheet_.rgb.begin() + static_cast<std::ptrdiff_t>(at));
    }
  }
}

}  // namespace chipmunk
