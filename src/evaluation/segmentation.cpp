#include "evaluation/segmentation.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace chipmunk {
namespace {

// Enough for the thinnest ring, and it averages away grain.
constexpr int kWorkingSide = 256;
constexpr int8_t kBackground = kColourCount;
constexpr double kMinArea = 0.003;  // of the picture; the smallest object covers 0.010
constexpr double kMaxArea = 0.35;   // the largest object covers 0.20
using Rgb = std::array<float, 3>;

struct Image {
  int width, height;
  std::vector<Rgb> pixels;
};

/// Averages whole blocks down to about the working size.
Image shrink(const Frames& picture) {
  const int side = std::min(picture.width, picture.height);
  const int factor = std::max(1, (side + kWorkingSide / 2) / kWorkingSide);
  Image image{picture.width / factor, picture.height / factor, {}};
  const float weight = 1.0f / static_cast<float>(factor * factor);
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) {
      Rgb sum{};
      for (int row = y * factor; row < (y + 1) * factor; ++row) {
        for (int column = x * factor; column < (x + 1) * factor; ++column) {
          const size_t at =
              (static_cast<size_t>(row) * static_cast<size_t>(picture.width) + static_cast<size_t>(column)) * 3;
          for (size_t c = 0; c < 3; ++c) sum[c] += weight * static_cast<float>(picture.rgb[at + c]);
        }
      }
      image.pixels.push_back(sum);
    }
  }
  return image;
}

/// The class of every colour, from the nearest of the palette and the backgrounds under the light that they may have.
class ColourTable {
 public:
  ColourTable() : classes_(size_t{1} << (3 * kBits)) {
    for (size_t i = 0; i < classes_.size(); ++i) {
      Rgb rgb{};
      for (size_t c = 0; c < 3; ++c) {
        rgb[c] = static_cast<float>(((i >> (kBits * c)) & kMask) * kStep + kStep / 2);
      }
      classes_[i] = classify(rgb);
    }
  }

  int8_t operator()(const Rgb& rgb) const {
    size_t index = 0;
    for (size_t c = 0; c < 3; ++c) {
      index |= std::min<size_t>(static_cast<size_t>(std::max(rgb[c], 0.0f)) / kStep, kMask) << (kBits * c);
    }
    return classes_[index];
  }

 private:
  static constexpr size_t kBits = 5, kStep = 8, kMask = 31;

  static double distance(const Rgb& rgb, const std::array<double, 3>& base, double scale, double offset) {
    double sum = 0;
    for (size_t c = 0; c < 3; ++c) sum += std::pow(rgb[c] - base[c] * scale - offset, 2);
    return sum;
  }

  static int8_t classify(const Rgb& rgb) {
    constexpr std::array<std::array<double, 3>, 5> kBackgrounds = {
        {{124, 124, 126}, {150, 141, 122}, {100, 112, 126}, {118, 132, 116}, {134, 118, 130}}};
    double best = std::numeric_limits<double>::max();
    int8_t found = kBackground;
    for (const auto& background : kBackgrounds) {
      // From a shadow on the darkest tone to the lightest one.
      for (int step = 0; step <= 18; ++step) {
        best = std::min(best, distance(rgb, background, 0.45 + 0.05 * step, 0));
      }
    }
    for (int8_t i = 0; i < kColourCount; ++i) {
      const auto& colour = kPalette[static_cast<uint8_t>(i)];
      const std::array<double, 3> base = {double(colour[0]), double(colour[1]), double(colour[2])};
      // A shadow on white is as bright as a background; on a saturated colour it misleads nobody.
      const bool saturated = i < static_cast<int>(Colour::kWhite);
      // Brightness in steps of 0.05 up to 1.15.
      for (int step = saturated ? 12 : 15; step <= 23; ++step) {
        const double scale = 0.05 * step;
        for (const double offset : {0.0, 8.0, 16.0}) {
          const double d = distance(rgb, base, scale, offset);
          if (d >= best) continue;
          best = d;
          found = i;
        }
      }
    }
    return found;
  }

  std::vector<int8_t> classes_;
};

/// Pixels whose neighbourhood has one class: edges between two colours, which look like a third, are not among them.
std::vector<uint8_t> find_cores(const Image& image, const std::vector<int8_t>& classes) {
  std::vector<uint8_t> cores(classes.size(), 0);
  for (int y = 1; y + 1 < image.height; ++y) {
    for (int x = 1; x + 1 < image.width; ++x) {
      const size_t at = static_cast<size_t>(y) * static_cast<size_t>(image.width) + static_cast<size_t>(x);
      bool solid = true;
      for (int dy = -1; dy <= 1 && solid; ++dy) {
        const size_t row = static_cast<size_t>(static_cast<int>(at) + dy * image.width);
        solid = classes[row - 1] == classes[at] && classes[row] == classes[at] && classes[row + 1] == classes[at];
      }
      cores[at] = solid ? 1 : 0;
    }
  }
  return cores;
}

/// Calls visit(neighbour) for the four neighbours of a pixel.
template <typename Visit>
void for_neighbours(int width, int height, int at, const Visit& visit) {
  const int x = at % width, y = at / width;
  if (x > 0) visit(at - 1);
  if (x + 1 < width) visit(at + 1);
  if (y > 0) visit(at - width);
  if (y + 1 < height) visit(at + width);
}

/// Connected core pixels of one class, numbered from 0; -1 elsewhere. `sizes` gets each number's pixels.
std::vector<int> connect(const Image& image, const std::vector<int8_t>& classes, const std::vector<uint8_t>& cores,
                         std::vector<int>* sizes) {
  std::vector<int> numbers(classes.size(), -1);
  std::vector<int> stack;
  for (size_t start = 0; start < classes.size(); ++start) {
    if (cores[start] == 0 || numbers[start] >= 0) continue;
    const int number = static_cast<int>(sizes->size());
    sizes->push_back(0);
    numbers[start] = number;
    stack.push_back(static_cast<int>(start));
    while (!stack.empty()) {
      const int at = stack.back();
      stack.pop_back();
      ++sizes->back();
      for_neighbours(image.width, image.height, at, [&](int next) {
        const auto n = static_cast<size_t>(next);
        if (cores[n] == 0 || numbers[n] >= 0 || classes[n] != classes[start]) return;
        numbers[n] = number;
        stack.push_back(next);
      });
    }
  }
  return numbers;
}

/// Gives the remaining pixels to a number next to them, of their own class if possible; then of the nearest colour.
void grow(const Image& image, const std::vector<int8_t>& classes, const std::vector<Rgb>& means,
          const std::vector<int8_t>& number_class, std::vector<int>* numbers) {
  constexpr int kRounds = 12;
  for (int round = 0; round < kRounds; ++round) {
    // First along the same class, for thin tips; mixed pixels of edges follow.
    const bool same_class = round < 6;
    const std::vector<int> before = *numbers;
    for (size_t at = 0; at < before.size(); ++at) {
      if (before[at] >= 0) continue;
      float best = std::numeric_limits<float>::max();
      for_neighbours(image.width, image.height, static_cast<int>(at), [&](int next) {
        const int number = before[static_cast<size_t>(next)];
        if (number < 0) return;
        if (same_class && number_class[static_cast<size_t>(number)] != classes[at]) return;
        float distance = 0;
        for (size_t c = 0; c < 3; ++c) {
          distance += std::pow(image.pixels[at][c] - means[static_cast<size_t>(number)][c], 2.0f);
        }
        if (distance >= best) return;
        best = distance;
        (*numbers)[at] = number;
      });
    }
  }
}

/// Number of the picture's four sides that a region touches.
int sides_touched(const Region& region, const Image& image) {
  return (region.left == 0) + (region.top == 0) + (region.right == image.width - 1) +
         (region.bottom == image.height - 1);
}

Segmentation collect(const Image& image, const std::vector<int>& numbers, const std::vector<int8_t>& number_class) {
  std::vector<Region> all(number_class.size());
  for (size_t i = 0; i < all.size(); ++i) {
    all[i].left = image.width;
    all[i].top = image.height;
    if (number_class[i] != kBackground) all[i].colour = static_cast<Colour>(number_class[i]);
  }
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) {
      const int number = numbers[static_cast<size_t>(y * image.width + x)];
      if (number < 0) continue;
      Region& region = all[static_cast<size_t>(number)];
      ++region.area;
      region.x += x;
      region.y += y;
      region.left = std::min(region.left, x);
      region.right = std::max(region.right, x);
      region.top = std::min(region.top, y);
      region.bottom = std::max(region.bottom, y);
    }
  }
  Segmentation result{image.width, image.height, std::vector<int16_t>(numbers.size(), -1), {}};
  std::vector<int16_t> kept(all.size(), -1);
  const double total = static_cast<double>(image.width) * image.height;
  for (size_t i = 0; i < all.size(); ++i) {
    Region& region = all[i];
    if (number_class[i] == kBackground || region.area < kMinArea * total || region.area > kMaxArea * total) continue;
    if (sides_touched(region, image) >= 3) continue;
    region.x /= region.area;
    region.y /= region.area;
    kept[i] = static_cast<int16_t>(result.regions.size());
    result.regions.push_back(region);
  }
  for (size_t at = 0; at < numbers.size(); ++at) {
    if (numbers[at] >= 0) result.labels[at] = kept[static_cast<size_t>(numbers[at])];
  }
  return result;
}

}  // namespace

Segmentation segment(const Frames& picture) {
  static const ColourTable kTable;
  const Image image = shrink(picture);
  std::vector<int8_t> classes(image.pixels.size());
  std::transform(image.pixels.begin(), image.pixels.end(), classes.begin(), kTable);
  std::vector<int> sizes;
  std::vector<int> numbers = connect(image, classes, find_cores(image, classes), &sizes);

  // Small cores lose their number, so that grow() can give their pixels to what surrounds them.
  const int min_core = std::max(4, static_cast<int>(kMinArea / 3 * static_cast<double>(image.pixels.size())));
  std::vector<Rgb> means(sizes.size(), Rgb{});
  std::vector<int8_t> number_class(sizes.size(), kBackground);
  for (size_t at = 0; at < numbers.size(); ++at) {
    if (numbers[at] < 0) continue;
    const auto number = static_cast<size_t>(numbers[at]);
    // The background may be small between objects, and is background still.
    if (classes[at] != kBackground && sizes[number] < min_core) {
      numbers[at] = -1;
      continue;
    }
    number_class[number] = classes[at];
    for (size_t c = 0; c < 3; ++c) means[number][c] += image.pixels[at][c] / static_cast<float>(sizes[number]);
  }
  grow(image, classes, means, number_class, &numbers);
  return collect(image, numbers, number_class);
}

}  // namespace chipmunk
