#include "evaluation/scene_checker.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "evaluation/scene_drawing.h"

namespace chipmunk {
namespace {

struct Tally {
  int right = 0, total = 0;

  void add(bool correct) {
    right += correct ? 1 : 0;
    ++total;
  }
  double share() const { return total == 0 ? 1.0 : static_cast<double>(right) / total; }
};

/// The specification with one thing changed, so that the picture no longer shows it; empty where `what` does not apply.
std::vector<SceneSpec> wrong_captions(const SceneSpec& spec, std::mt19937_64& random) {
  const auto other = [&random](auto value, int count) {
    const int step = 1 + static_cast<int>(random() % static_cast<uint64_t>(count - 1));
    return static_cast<decltype(value)>((static_cast<int>(value) + step) % count);
  };
  const size_t chosen = random() % spec.objects.size();
  std::vector<SceneSpec> wrong(2, spec);
  wrong[0].objects[chosen].colour = other(spec.objects[chosen].colour, kColourCount);
  wrong[1].objects[chosen].shape = other(spec.objects[chosen].shape, kShapeCount);
  SceneSpec added = spec;
  added.objects.push_back({other(spec.objects[0].shape, kShapeCount), other(spec.objects[0].colour, kColourCount), {}});
  wrong.push_back(added);
  if (spec.objects.size() > 1) {
    SceneSpec missing = spec;
    missing.relations.clear();
    missing.objects.pop_back();
    wrong.push_back(missing);
  }
  if (!spec.relations.empty()) {
    SceneSpec reversed = spec;
    std::swap(reversed.relations[0].subject, reversed.relations[0].object);
    wrong.push_back(reversed);
  }
  return wrong;
}

void check_scenes(int count, int side, uint64_t seed) {
  std::mt19937_64 random(seed);
  Tally found, colour, shape, relation, rejected;
  for (int i = 0; i < count; ++i) {
    const DrawnScene scene = sample_scene(random);
    const SceneAnalysis analysis = analyse_picture(draw_scene(scene, side, side, static_cast<uint64_t>(i)));
    const SceneVerdict verdict = check_scene(analysis, scene.spec);
    for (const ObjectVerdict& object : verdict.objects) {
      found.add(object.found);
      colour.add(object.colour);
      shape.add(object.shape);
    }
    for (const bool holds : verdict.relations) relation.add(holds);
    for (const SceneSpec& wrong : wrong_captions(scene.spec, random)) {
      rejected.add(!check_scene(analysis, wrong).all_correct);
    }
  }
  const auto record = [side](const char* name, const Tally& tally) {
    ::testing::Test::RecordProperty(std::string(name) + "_" + std::to_string(side), std::to_string(tally.share()));
  };
  record("found", found);
  record("colour", colour);
  record("shape", shape);
  record("relation", relation);
  record("rejected", rejected);
  EXPECT_GE(found.share(), 0.99);
  EXPECT_GE(colour.share(), 0.99);
  EXPECT_GE(shape.share(), 0.99);
  // Few of the quick runs' scenes have one, so that a single miss weighs more.
  EXPECT_GE(relation.share(), count < 500 ? 0.97 : 0.99);
  EXPECT_GE(rejected.share(), 0.95);
}

Frames plain_picture(uint8_t red, uint8_t green, uint8_t blue) {
  Frames picture{256, 256, 1, 0.0, {}};
  for (int i = 0; i < 256 * 256; ++i) picture.rgb.insert(picture.rgb.end(), {red, green, blue});
  return picture;
}

TEST(SceneChecker, ReadsDrawnScenesAt256) { check_scenes(100, 256, 1); }
TEST(SceneChecker, ReadsDrawnScenesAt512) { check_scenes(40, 512, 2); }
TEST(SceneCheckerSlow, ReadsDrawnScenesAt256) { check_scenes(1200, 256, 3); }
TEST(SceneCheckerSlow, ReadsDrawnScenesAt512) { check_scenes(1000, 512, 4); }

TEST(SceneChecker, SeesNothingInPlainPictures) {
  for (const auto& [red, green, blue] : {std::array<uint8_t, 3>{124, 124, 126}, {215, 35, 40}, {255, 255, 255}}) {
    EXPECT_TRUE(analyse_picture(plain_picture(red, green, blue)).fits.empty());
  }
}

TEST(SceneChecker, SeesNoSceneInNoise) {
  std::mt19937_64 random(1);
  Frames noise = plain_picture(0, 0, 0);
  for (uint8_t& value : noise.rgb) value = static_cast<uint8_t>(random());
  const SceneAnalysis analysis = analyse_picture(noise);
  const SceneVerdict verdict = check_scene(analysis, sample_scene(random).spec);
  for (const ObjectVerdict& object : verdict.objects) EXPECT_FALSE(object.shape);
  EXPECT_FALSE(verdict.all_correct);
}

}  // namespace
}  // namespace chipmunk
