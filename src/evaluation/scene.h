#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/config.h"

/// What a demo picture should show. The vocabulary is that of tools/train/scenes.py.
namespace chipmunk {

enum class Shape { kCircle, kSquare, kTriangle, kStar, kHeart, kCross, kRing, kDiamond };
enum class Colour { kRed, kOrange, kYellow, kGreen, kCyan, kBlue, kPurple, kPink, kWhite, kBlack };
enum class Size { kSmall, kMedium, kLarge };
enum class Relation { kLeftOf, kRightOf, kAbove, kBelow, kInside, kOverlapping };

inline constexpr int kShapeCount = 8;
inline constexpr int kColourCount = 10;
inline constexpr int kSizeCount = 3;
inline constexpr int kRelationCount = 6;

/// 8-bit RGB of the palette.
inline constexpr std::array<std::array<int, 3>, kColourCount> kPalette = {{{215, 35, 40},
                                                                           {245, 135, 25},
                                                                           {245, 220, 45},
                                                                           {40, 160, 65},
                                                                           {40, 205, 220},
                                                                           {40, 80, 220},
                                                                           {130, 55, 185},
                                                                           {248, 130, 190},
                                                                           {246, 246, 246},
                                                                           {22, 22, 25}}};

std::string_view to_string(Shape shape);
std::string_view to_string(Colour colour);
std::string_view to_string(Size size);
/// "left of", "right of", "above", "below", "inside", "overlapping".
std::string_view to_string(Relation relation);

struct SceneObject {
  Shape shape = Shape::kCircle;
  Colour colour = Colour::kRed;
  std::optional<Size> size;  ///< judged only where the prompt names it
};

/// objects[subject] <kind> objects[object]; the subject of an overlap lies in front.
struct SceneRelation {
  int subject = 0;
  Relation kind = Relation::kLeftOf;
  int object = 0;
};

struct SceneSpec {
  std::string prompt;
  std::vector<SceneObject> objects;
  std::vector<SceneRelation> relations;
  bool held_out = false;  ///< holds a combination that training never showed
};

/// {"prompt", "objects": [{"shape", "colour", "size"}], "relations": [{"subject", "relation", "object"}], "held_out"}.
/// Throws kInvalidConfig for unknown words and indices that name no object.
SceneSpec scene_from_json(const JsonConfig& json);
std::string to_json(const SceneSpec& scene);

/// The scenes of a suite file, {"scenes": [...]}. Throws as scene_from_json() and JsonConfig::load() do.
std::vector<SceneSpec> load_suite(const std::filesystem::path& path);

}  // namespace chipmunk
