#include "evaluation/scene.h"

#include <gtest/gtest.h>

#include "chipmunk/error.h"

namespace chipmunk {
namespace {

TEST(Scene, RoundTrip) {
  SceneSpec scene;
  scene.prompt = "a \"red\" circle\nabove a ring";
  scene.objects = {{Shape::kCircle, Colour::kRed, Size::kSmall}, {Shape::kRing, Colour::kBlack, {}}};
  scene.relations = {{0, Relation::kAbove, 1}};
  scene.held_out = true;
  const SceneSpec read = scene_from_json(JsonConfig::parse(to_json(scene), "test"));
  EXPECT_EQ(read.prompt, scene.prompt);
  ASSERT_EQ(read.objects.size(), 2u);
  EXPECT_EQ(read.objects[0].size, Size::kSmall);
  EXPECT_EQ(read.objects[1].colour, Colour::kBlack);
  EXPECT_FALSE(read.objects[1].size.has_value());
  ASSERT_EQ(read.relations.size(), 1u);
  EXPECT_EQ(read.relations[0].kind, Relation::kAbove);
  EXPECT_TRUE(read.held_out);
}

TEST(Scene, RefusesWhatItDoesNotKnow) {
  for (const char* text :
       {R"({"prompt": "", "objects": []})", R"({"prompt": "", "objects": [{"shape": "cat", "colour": "red"}]})",
        R"({"prompt": "", "objects": [{"shape": "star", "colour": "red"}],
            "relations": [{"subject": 0, "relation": "above", "object": 1}]})",
        R"({"prompt": "", "objects": [1]})"}) {
    EXPECT_THROW(scene_from_json(JsonConfig::parse(text, "test")), Error) << text;
  }
}

}  // namespace
}  // namespace chipmunk
