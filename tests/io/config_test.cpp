#include "io/config.h"

#include "io_test_util.h"

namespace chipmunk {
namespace {

using test::expect_error;
using test::TempFolder;

const JsonConfig& sample() {
  static const JsonConfig config = JsonConfig::parse(
      R"({"layers": 19, "eps": 1e-6, "bias": false, "act": "gelu", "axes": [16, 56, 56], "scale": 1,
          "none": null, "half": 0.5, "names": ["a", "b"], "rope": {"theta": 10000, "deep": {"x": "y"}},
          "mixed": [1, "a"], "big": 9223372036854775808})",
      "config.json");
  return config;
}

TEST(JsonConfig, ReadsTypedValues) {
  const JsonConfig& config = sample();
  EXPECT_EQ(config.integer("layers"), 19);
  EXPECT_EQ(config.integer("layers", 1, 19), 19);
  EXPECT_EQ(config.number("eps"), 1e-6);
  EXPECT_EQ(config.number("scale"), 1.0);
  EXPECT_FALSE(config.boolean("bias"));
  EXPECT_EQ(config.string("act"), "gelu");
  EXPECT_EQ(config.integers("axes"), (std::vector<int64_t>{16, 56, 56}));
  EXPECT_EQ(config.numbers("axes"), (std::vector<double>{16, 56, 56}));
  EXPECT_EQ(config.strings("names"), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(config.object("rope").object("deep").string("x"), "y");
  EXPECT_TRUE(config.has("none"));
  EXPECT_TRUE(config.is_null("none"));
  EXPECT_FALSE(config.is_null("absent"));
  EXPECT_TRUE(config.is_list("axes") && config.is_object("rope") && config.is_string("act"));
  EXPECT_TRUE(config.is_string_list("names"));
  EXPECT_FALSE(config.is_string_list("mixed"));
  EXPECT_EQ(config.object("rope").keys(), (std::vector<std::string>{"deep", "theta"}));
}

TEST(JsonConfig, FallbacksStandForAbsentAndNull) {
  const JsonConfig& config = sample();
  EXPECT_EQ(config.integer_or("absent", 3), 3);
  EXPECT_EQ(config.integer_or("none", 3), 3);
  EXPECT_EQ(config.integer_or("layers", 3), 19);
  EXPECT_EQ(config.number_or("absent", 0.25), 0.25);
  EXPECT_TRUE(config.boolean_or("none", true));
  EXPECT_EQ(config.string_or("absent", "x"), "x");
  EXPECT_EQ(config.integers_or("absent", {1, 2}), (std::vector<int64_t>{1, 2}));
}

TEST(JsonConfig, ErrorsNameFileKeyExpectedAndFound) {
  const JsonConfig& config = sample();
  constexpr ErrorCode kCode = ErrorCode::kInvalidConfig;
  const std::string key = "config.json: key \"";
  expect_error(kCode, {key + "absent\": expected an integer", "missing"}, [&] { config.integer("absent"); });
  expect_error(kCode, {key + "layers\"", "in [1, 4]", "found 19"}, [&] { config.integer("layers", 1, 4); });
  expect_error(kCode, {key + "layers\"", "at least 20", "found 19"}, [&] { config.integer("layers", 20); });
  expect_error(kCode, {"half", "an integer", "0.5"}, [&] { config.integer("half"); });
  expect_error(kCode, {"none", "an integer", "null"}, [&] { config.integer("none"); });
  expect_error(kCode, {"big", "an integer"}, [&] { config.integer("big"); });
  expect_error(kCode, {"act", "an integer", "\"gelu\""}, [&] { config.integer_or("act", 1); });
  expect_error(kCode, {"act", "a number", "\"gelu\""}, [&] { config.number("act"); });
  expect_error(kCode, {"layers", "true or false", "19"}, [&] { config.boolean("layers"); });
  expect_error(kCode, {"layers", "a string", "19"}, [&] { config.string("layers"); });
  expect_error(kCode, {"layers", "a list", "19"}, [&] { config.integers("layers"); });
  expect_error(kCode, {"axes", "in [0, 20]", "[16,56,56]"}, [&] { config.integers("axes", 0, 20); });
  expect_error(kCode, {"mixed", "numbers"}, [&] { config.numbers("mixed"); });
  expect_error(kCode, {"mixed", "strings"}, [&] { config.strings("mixed"); });
  expect_error(kCode, {"axes", "an object"}, [&] { config.object("axes"); });
  expect_error(kCode, {key + "rope.deep.z\""}, [&] { config.object("rope").object("deep").string("z"); });
}

TEST(JsonConfig, BrokenTextIsAnInvalidFile) {
  constexpr ErrorCode kCode = ErrorCode::kInvalidFile;
  const auto parse = [](std::string_view text) { return [text] { JsonConfig::parse(text, "f.json"); }; };
  expect_error(kCode, {"f.json", "line 1, column 6"}, parse(R"({"a" 1})"));
  expect_error(kCode, {"f.json"}, parse(""));
  expect_error(kCode, {"object", "[]"}, parse("[]"));
  expect_error(kCode, {"\"a\"", "twice"}, parse(R"({"a":1,"a":2})"));
  expect_error(kCode, {"\"b\"", "twice"}, parse(R"({"a":{"b":1,"c":[{}],"b":2}})"));
  expect_error(kCode, {"UTF-8"}, parse("{\"a\":\"\xff\"}"));
  expect_error(kCode, {"NUL"}, parse(std::string_view("{}\0", 3)));
  const std::string deep = R"({"a":)" + std::string(100000, '[') + std::string(100000, ']') + "}";
  expect_error(kCode, {"deep"}, parse(deep));
  EXPECT_NO_THROW(JsonConfig::parse(R"({"a":{"b":1},"c":{"b":1}})", "f.json")) << "the same key in two objects";
}

TEST(JsonConfig, Files) {
  const TempFolder folder;
  expect_error(ErrorCode::kNotFound, {"config.json"}, [&] { JsonConfig::load(folder / "config.json"); });
  expect_error(ErrorCode::kInvalidFile, {"folder"}, [&] { JsonConfig::load(folder.path()); });
  const JsonConfig config = JsonConfig::load(folder.add("config.json", R"({"a": 1})"));
  EXPECT_EQ(config.where(), (folder / "config.json").string());
  expect_error(ErrorCode::kInvalidConfig, {(folder / "config.json").string(), "\"b\""}, [&] { config.integer("b"); });
}

TEST(JsonConfig, OverlayMergesObjectsAndReplacesTheRest) {
  const JsonConfig base = JsonConfig::parse(R"({"a":1,"o":{"x":1,"y":[1,2]},"l":[1]})", "defaults");
  const JsonConfig over = JsonConfig::parse(R"({"o":{"y":[3]},"l":{"new":true},"n":null})", "user.json");
  const JsonConfig merged = base.overlaid_with(over);
  EXPECT_EQ(merged.to_json(), R"({"a":1,"l":{"new":true},"n":null,"o":{"x":1,"y":[3]}})");
  EXPECT_EQ(base.to_json(), R"({"a":1,"l":[1],"o":{"x":1,"y":[1,2]}})") << "unchanged";
  expect_error(ErrorCode::kInvalidConfig, {"defaults", "user.json"}, [&] { merged.string("a"); });
}

TEST(JsonConfig, GoldenConfig) {
  const JsonConfig config = JsonConfig::load(test::golden("flux-tiny/model/transformer/config.json"));
  EXPECT_EQ(config.string("_class_name"), "FluxTransformer2DModel");
  EXPECT_EQ(config.integers("axes_dims_rope"), (std::vector<int64_t>{8, 12, 12}));
  EXPECT_TRUE(config.boolean("guidance_embeds"));
}

}  // namespace
}  // namespace chipmunk
