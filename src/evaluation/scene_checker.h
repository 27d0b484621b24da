#pragma once

#include <vector>

#include "evaluation/shape_fit.h"

/// Image analysis, without learning, that tells whether a picture shows what its prompt said.
namespace chipmunk {

/// What a picture shows, before anyone asks what it should show.
struct SceneAnalysis {
  Segmentation segmentation;
  std::vector<ShapeFit> fits;  ///< of each region
  double side = 0;             ///< the shorter side in pixels of the segmentation
};

struct ObjectVerdict {
  bool found = false;  ///< something of its shape or colour is there, and is no other object of the scene
  bool colour = false, shape = false;
  bool size = true;  ///< true also where no size was asked for
};

struct SceneVerdict {
  std::vector<ObjectVerdict> objects;
  std::vector<bool> relations;
  int extra = 0;  ///< things that the scene does not name
  bool all_correct = false;
};

SceneAnalysis analyse_picture(const Frames& picture);

/// Assigns what was seen to what was asked for so that most agrees. all_correct: every object found with its colour and
/// shape, every relation holds and nothing else is there.
SceneVerdict check_scene(const SceneAnalysis& analysis, const SceneSpec& spec);

}  // namespace chipmunk
