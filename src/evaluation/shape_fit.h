#pragma once

#include "evaluation/segmentation.h"

namespace chipmunk {

/// A shape laid over a region, in pixels of the segmentation.
struct ShapeFit {
  Shape shape = Shape::kCircle;
  double x = 0, y = 0, radius = 0, angle = 0;
  double overlap = 0;  ///< intersection over union, 1 at best

  /// Signed distance in pixels; negative inside.
  double distance(double px, double py) const;
};

/// The shape that covers a region best, upright up to a small turn. What other regions cover counts little: they may
/// hide a part of this one.
ShapeFit fit_shape(const Segmentation& segmentation, int region);

}  // namespace chipmunk
