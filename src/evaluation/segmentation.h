#pragma once

#include <cstdint>
#include <vector>

#include "chipmunk/pipeline.h"
#include "evaluation/scene.h"

namespace chipmunk {

/// A connected region of one palette colour.
struct Region {
  Colour colour = Colour::kRed;
  int area = 0;
  int left = 0, right = 0, top = 0, bottom = 0;  ///< inclusive
  double x = 0, y = 0;                           ///< centroid, in pixels
};

/// A picture at working size, split into background and coloured regions.
struct Segmentation {
  int width = 0, height = 0;
  std::vector<int16_t> labels;  ///< per pixel: index into regions, or -1
  std::vector<Region> regions;

  int label(int x, int y) const {
    return labels[static_cast<size_t>(y) * static_cast<size_t>(width) + static_cast<size_t>(x)];
  }
};

/// Background is what is muted and of middle brightness; regions are connected pixels of one palette colour with a
/// solid core. Specks and what fills the picture's frame are no regions.
Segmentation segment(const Frames& picture);

}  // namespace chipmunk
