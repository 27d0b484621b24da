#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "chipmunk/pipeline.h"
#include "evaluation/scene.h"

/// Draws scenes with known truth, by the rules of tools/train/render.py: what the checker is tested on.
namespace chipmunk {

struct PlacedObject {
  double x = 0, y = 0;  ///< from the picture's centre, in units of its shorter side
  double radius = 0, angle = 0;
};

enum class BackgroundKind { kPlain, kGradient, kStriped, kCheckered, kSpeckled };
inline constexpr int kBackgroundKindCount = 5;
inline constexpr int kBackgroundCount = 5;

struct DrawnScene {
  SceneSpec spec;
  std::vector<PlacedObject> layout;  ///< of each object of the specification
  std::vector<int> draw_order;
  int background = 0;
  BackgroundKind background_kind = BackgroundKind::kPlain;
  std::vector<double> style;  ///< 16 uniform numbers: tones, texture, light, noise
};

/// A random scene of one to three objects on a square picture that obeys its relations.
DrawnScene sample_scene(std::mt19937_64& random);

/// The scene with its film grain, whose values depend on noise_seed alone.
Frames draw_scene(const DrawnScene& scene, int width, int height, uint64_t noise_seed);

}  // namespace chipmunk
