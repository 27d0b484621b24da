#pragma once

#include "evaluation/scene.h"

/// The silhouettes of tools/train/render.py, for radius 1, x to the right and y downwards.
namespace chipmunk {

/// Negative inside; near the boundary the distance to it, in radii.
double shape_distance(Shape shape, double x, double y);

/// No point of the shape lies farther from the origin.
double shape_reach(Shape shape);

/// Area and centroid of the silhouette for radius 1.
struct ShapeMoments {
  double area, x, y;
};
const ShapeMoments& shape_moments(Shape shape);

}  // namespace chipmunk
