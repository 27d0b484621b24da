#include "evaluation/scene_drawing.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "evaluation/shape_geometry.h"

namespace chipmunk {
namespace {

constexpr double kPi = 3.14159265358979323846;
using Rgb = std::array<double, 3>;

constexpr std::array<Rgb, kBackgroundCount> kBackgrounds = {
    {{124, 124, 126}, {150, 141, 122}, {100, 112, 126}, {118, 132, 116}, {134, 118, 130}}};

/// What all pixels of a scene share.
struct Look {
  Rgb first, second;
  BackgroundKind kind;
  double angle, frequency, strength, phase, tilt, light_x, light_y, noise;
};

Look make_look(const DrawnScene& scene) {
  const std::vector<double>& style = scene.style;
  Look look{};
  const double swing = (0.06 + 0.10 * style[1]) * (style[2] < 0.5 ? 1 : -1);
  for (size_t c = 0; c < 3; ++c) {
    look.first[c] = kBackgrounds[static_cast<size_t>(scene.background)][c] / 255 + 0.05 * (style[0] - 0.5);
    look.second[c] = look.first[c] + swing;
  }
  look.kind = scene.background_kind;
  look.angle = 2 * kPi * style[2];
  look.frequency = (5 + 9 * style[3]) * 2 * kPi;
  look.strength = 0.05 + 0.06 * style[4];
  look.phase = 2 * kPi * style[5];
  look.tilt = 2 * kPi * style[6];
  const double light = kPi * (-0.75 + 0.5 * style[7]);
  look.light_x = std::cos(light);
  look.light_y = std::sin(light);
  look.noise = 0.004 + 0.008 * style[9];
  return look;
}

double speckle(double x, double y, double phase) {
  constexpr std::array<std::array<double, 2>, 5> kWaves = {{{31, 0.4}, {43, 1.7}, {57, 2.6}, {37, 3.9}, {71, 5.1}}};
  double sum = 0;
  for (size_t k = 0; k < kWaves.size(); ++k) {
    const auto [frequency, angle] = kWaves[k];
    sum += std::sin(frequency * (x * std::cos(angle) + y * std::sin(angle)) +
                    2 * kPi * static_cast<double>(k + 1) * phase);
  }
  return sum;
}

Rgb background_at(const Look& look, double x, double y) {
  const double u = x * std::cos(look.angle) + y * std::sin(look.angle);
  const double v = y * std::cos(look.angle) - x * std::sin(look.angle);
  const auto wave = [&look](double t) { return std::tanh(3 * std::sin(look.frequency * t + look.phase)); };
  double ramp = 0, texture = 0;
  switch (look.kind) {
    case BackgroundKind::kPlain: break;
    case BackgroundKind::kGradient:
      ramp = std::clamp(0.5 + 0.9 * (x * std::cos(look.tilt) + y * std::sin(look.tilt)), 0.0, 1.0);
      break;
    case BackgroundKind::kStriped: texture = wave(u); break;
    case BackgroundKind::kCheckered: texture = wave(u) * wave(v); break;
    case BackgroundKind::kSpeckled: texture = 0.4 * speckle(x, y, look.phase); break;
  }
  Rgb rgb{};
  for (size_t c = 0; c < 3; ++c) {
    rgb[c] = (look.first[c] + ramp * (look.second[c] - look.first[c])) * (1 + look.strength * texture);
  }
  return rgb;
}

/// Shadow and body of one object over what is there already.
void draw_object(const Look& look, const SceneObject& object, const PlacedObject& place, double x, double y,
                 double pixels, Rgb* rgb) {
  const double dx = (x - place.x) / place.radius, dy = (y - place.y) / place.radius;
  if (std::hypot(dx, dy) > shape_reach(object.shape) + 0.5) return;
  const double cos = std::cos(place.angle), sin = std::sin(place.angle);
  const auto distance_at = [&](double px, double py) {
    return shape_distance(object.shape, px * cos + py * sin, py * cos - px * sin);
  };
  const double distance = distance_at(dx, dy);
  const double below = distance_at(dx + 0.14 * look.light_x, dy + 0.14 * look.light_y);
  const double shadow = 0.28 * std::clamp(0.5 - below / 0.22, 0.0, 1.0);
  const double cover = std::clamp(0.5 - distance * place.radius * pixels, 0.0, 1.0);
  const double facing = dx * look.light_x + dy * look.light_y;
  const double rim = std::exp(-std::pow(distance / 0.10, 2)) * std::tanh(2 * facing);
  const double shade = 0.97 + 0.07 * std::clamp(facing, -1.2, 1.2) + 0.07 * rim;
  for (size_t c = 0; c < 3; ++c) {
    double& value = (*rgb)[c];
    value *= 1 - shadow;
    const double colour = kPalette[static_cast<size_t>(object.colour)][c] / 255.0;
    value += cover * (colour * shade + 0.03 * (std::clamp(facing, -1.0, 1.0) + 1) - value);
  }
}

double uniform(std::mt19937_64& random, double low = 0, double high = 1) {
  return std::uniform_real_distribution<double>(low, high)(random);
}
int below(std::mt19937_64& random, int count) { return std::uniform_int_distribution<int>(0, count - 1)(random); }

bool joins(Relation kind) { return kind == Relation::kInside || kind == Relation::kOverlapping; }

bool holds_others(Shape shape) {
  return shape == Shape::kCircle || shape == Shape::kSquare || shape == Shape::kTriangle || shape == Shape::kHeart ||
         shape == Shape::kRing;
}

/// Objects and relations without places; false if they cannot be drawn together.
bool choose_content(std::mt19937_64& random, SceneSpec* spec) {
  const int count = 1 + below(random, 3);
  for (int i = 0; i < count; ++i) {
    spec->objects.push_back({static_cast<Shape>(below(random, kShapeCount)),
                             static_cast<Colour>(below(random, kColourCount)),
                             static_cast<Size>(below(random, kSizeCount))});
  }
  for (int i = 0; i < count; ++i) {
    for (int j = 0; j < i; ++j) {
      const SceneObject &a = spec->objects[static_cast<size_t>(i)], &b = spec->objects[static_cast<size_t>(j)];
      if (a.shape == b.shape && a.colour == b.colour) return false;
    }
  }
  if (count == 1 || below(random, 4) == 0) return true;
  const auto kind = static_cast<Relation>(below(random, kRelationCount));
  spec->relations.push_back({0, kind, 1});
  SceneObject &a = spec->objects[0], &b = spec->objects[1];
  if (kind == Relation::kInside) {
    a.size = Size::kSmall;
    b.size = Size::kLarge;
    if (!holds_others(b.shape)) return false;
  }
  if (kind == Relation::kOverlapping && *a.size > *b.size) std::swap(a.size, b.size);
  if (joins(kind) && a.colour == b.colour) return false;
  if (count == 3 && below(random, 2) == 0) spec->relations.push_back({2, static_cast<Relation>(below(random, 4)), 1});
  return true;
}

PlacedObject place_beside(std::mt19937_64& random, const DrawnScene& scene, const SceneRelation& relation) {
  const auto subject = static_cast<size_t>(relation.subject), object = static_cast<size_t>(relation.object);
  PlacedObject place = scene.layout[subject];
  const PlacedObject& other = scene.layout[object];
  const Shape other_shape = scene.spec.objects[object].shape;
  double dx = 0, dy = 0;
  if (relation.kind == Relation::kInside) {
    dx = uniform(random, -0.01, 0.01);
    dy = uniform(random, -0.01, 0.01) - (other_shape == Shape::kHeart ? 0.12 * other.radius : 0);
  } else if (relation.kind == Relation::kOverlapping) {
    const double distance = (place.radius + other.radius) * uniform(random, 0.62, 0.85);
    const double direction = uniform(random, 0, 2 * kPi);
    dx = distance * std::cos(direction);
    dy = distance * std::sin(direction);
  } else {
    const double along = place.radius * shape_reach(scene.spec.objects[subject].shape) +
                         other.radius * shape_reach(other_shape) + uniform(random, 0.025, 0.22);
    const double across = uniform(random, -0.45, 0.45) * along;
    const bool sideways = relation.kind == Relation::kLeftOf || relation.kind == Relation::kRightOf;
    const double sign = relation.kind == Relation::kLeftOf || relation.kind == Relation::kAbove ? -1 : 1;
    dx = sideways ? sign * along : across;
    dy = sideways ? across : sign * along;
  }
  place.x = other.x + dx;
  place.y = other.y + dy;
  return place;
}

bool fits(const DrawnScene& scene) {
  constexpr double kGap = 0.025, kEdge = 0.02;
  const auto reach = [&scene](size_t i) { return scene.layout[i].radius * shape_reach(scene.spec.objects[i].shape); };
  for (size_t i = 0; i < scene.layout.size(); ++i) {
    const PlacedObject& place = scene.layout[i];
    if (std::max(std::abs(place.x), std::abs(place.y)) + reach(i) + kEdge > 0.5) return false;
    for (size_t j = 0; j < i; ++j) {
      const bool touching =
          std::any_of(scene.spec.relations.begin(), scene.spec.relations.end(), [i, j](const SceneRelation& relation) {
            return joins(relation.kind) && static_cast<size_t>(std::max(relation.subject, relation.object)) == i &&
                   static_cast<size_t>(std::min(relation.subject, relation.object)) == j;
          });
      const double distance = std::hypot(place.x - scene.layout[j].x, place.y - scene.layout[j].y);
      if (!touching && distance < reach(i) + reach(j) + kGap) return false;
    }
  }
  return true;
}

bool lay_out(std::mt19937_64& random, DrawnScene* scene) {
  constexpr std::array<std::array<double, 2>, kSizeCount> kDiameters = {{{0.18, 0.22}, {0.28, 0.34}, {0.42, 0.50}}};
  for (int attempt = 0; attempt < 60; ++attempt) {
    scene->layout.clear();
    for (const SceneObject& object : scene->spec.objects) {
      // Scenes to be drawn have sizes, unlike specifications read from a file.
      const auto& range =
          kDiameters[static_cast<size_t>(object.size.value())];  // NOLINT(bugprone-unchecked-optional-access)
      scene->layout.push_back({uniform(random, -0.45, 0.45), uniform(random, -0.45, 0.45),
                               0.5 * uniform(random, range[0], range[1]), uniform(random, -0.15, 0.15)});
    }
    for (const SceneRelation& relation : scene->spec.relations) {
      scene->layout[static_cast<size_t>(relation.subject)] = place_beside(random, *scene, relation);
    }
    if (fits(*scene)) return true;
  }
  return false;
}

}  // namespace

DrawnScene sample_scene(std::mt19937_64& random) {
  for (;;) {
    DrawnScene scene;
    if (!choose_content(random, &scene.spec) || !lay_out(random, &scene)) continue;
    scene.background = below(random, kBackgroundCount);
    scene.background_kind = static_cast<BackgroundKind>(below(random, kBackgroundKindCount));
    for (int i = 0; i < 16; ++i) scene.style.push_back(uniform(random));
    // Subjects of relations that join silhouettes lie in front, and come first in the specification.
    for (size_t i = scene.spec.objects.size(); i-- > 0;) scene.draw_order.push_back(static_cast<int>(i));
    return scene;
  }
}

Frames draw_scene(const DrawnScene& scene, int width, int height, uint64_t noise_seed) {
  const Look look = make_look(scene);
  const double pixels = std::min(width, height);
  std::mt19937_64 random(noise_seed);
  std::normal_distribution<double> noise(0.0, look.noise);
  Frames frames;
  frames.width = width;
  frames.height = height;
  frames.rgb.reserve(static_cast<size_t>(width) * static_cast<size_t>(height) * 3);
  for (int row = 0; row < height; ++row) {
    for (int column = 0; column < width; ++column) {
      const double x = (column + 0.5 - 0.5 * width) / pixels, y = (row + 0.5 - 0.5 * height) / pixels;
      Rgb rgb = background_at(look, x, y);
      for (const int i : scene.draw_order) {
        const auto index = static_cast<size_t>(i);
        draw_object(look, scene.spec.objects[index], scene.layout[index], x, y, pixels, &rgb);
      }
      for (const double value : rgb) {
        const double noisy = std::clamp(std::clamp(value, 0.0, 1.0) + noise(random), 0.0, 1.0);
        frames.rgb.push_back(static_cast<uint8_t>(std::lround(255 * noisy)));
      }
    }
  }
  return frames;
}

}  // namespace chipmunk
