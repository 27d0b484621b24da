#include "io/weight_map.h"

#include <cstring>
#include <map>

#include "io_test_util.h"

namespace chipmunk {
namespace {

using test::counting_tensor;
using test::expect_error;
using test::TempFolder;

using Tensors = std::map<std::string, Tensor>;

Tensor small(int first = 0) { return counting_tensor({2, 3}, DType::kF32, first); }

/// Two shards with an index, as large checkpoints come.
void write_shards(const TempFolder& folder, const std::string& index) {
  write_safetensors(folder / "model-1.safetensors", Tensors{{"a", small()}, {"extra", small()}});
  write_safetensors(folder / "model-2.safetensors", Tensors{{"b", small(10)}});
  folder.add("model.safetensors.index.json", index);
}

TEST(WeightMap, SingleFile) {
  const TempFolder folder;
  write_safetensors(folder / "any name.safetensors",
                    Tensors{{"a", small()}, {"b", counting_tensor({4}, DType::kBF16)}});
  WeightMap weights = WeightMap::open(folder / "any name.safetensors");
  EXPECT_EQ(weights.names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(weights.shape_of("b"), Dims{4});
  EXPECT_EQ(weights.stored_bytes(), 32u);
  EXPECT_EQ(weights.parameter_count(), 10);
  EXPECT_EQ(weights.take("a", {2, 3}).data_as<float>()[4], 4.0f);
  EXPECT_EQ(weights.take("b", {4}).dtype(), DType::kBF16);
  EXPECT_EQ(weights.take("a", {2, 3}).data_as<float>()[4], 4.0f) << "tied weights are taken twice";
  EXPECT_NO_THROW(weights.finish());
}

TEST(WeightMap, FolderPreferences) {
  const TempFolder folder;
  const auto opens = [&](const std::string& expected) {
    const WeightFiles found = find_weight_files(folder.path());
    ASSERT_EQ(found.shards.size(), 1u);
    EXPECT_EQ(found.shards[0].filename(), expected);
  };
  expect_error(ErrorCode::kNotFound, {"no weights"}, [&] { find_weight_files(folder.path()); });
  expect_error(ErrorCode::kNotFound, {"nowhere"}, [&] { WeightMap::open(folder / "nowhere"); });
  write_safetensors(folder / "model.fp16.safetensors", Tensors{{"a", small()}});
  opens("model.fp16.safetensors");
  write_safetensors(folder / "other.safetensors", Tensors{{"a", small()}});
  opens("model.fp16.safetensors");
  write_safetensors(folder / "model.safetensors", Tensors{{"a", small()}});
  opens("model.safetensors");
  write_safetensors(folder / "diffusion_pytorch_model.safetensors", Tensors{{"a", small()}});
  opens("diffusion_pytorch_model.safetensors");
}

TEST(WeightMap, TheOnlyFileOfAFolder) {
  const TempFolder folder;
  write_safetensors(folder / "flux1.safetensors", Tensors{{"a", small()}});
  EXPECT_TRUE(WeightMap::open(folder.path()).contains("a"));
  write_safetensors(folder / "flux2.safetensors", Tensors{{"a", small()}});
  expect_error(ErrorCode::kNotFound, {"found 2 files"}, [&] { WeightMap::open(folder.path()); });
}

TEST(WeightMap, Shards) {
  const TempFolder folder;
  write_shards(folder,
               R"({"metadata":{"total_size":1},"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}})");
  WeightMap weights = WeightMap::open(folder.path());
  EXPECT_EQ(weights.files().size(), 2u);
  EXPECT_EQ(weights.take("b", {2, 3}).data_as<float>()[0], 10.0f);
  weights.take("a", {2, 3});
  // In a shard but not in the index: nobody asks for it, so it is unused.
  expect_error(ErrorCode::kInvalidWeights, {"unused (1)", "extra: [2, 3]"}, [&] { weights.finish(); });
}

struct BadIndex {
  const char* name;
  const char* json;
  ErrorCode code;
  std::vector<std::string> parts;
};

class BadIndices : public testing::TestWithParam<BadIndex> {};

TEST_P(BadIndices, AreRejected) {
  const TempFolder folder;
  write_shards(folder, GetParam().json);
  std::vector<std::string> parts = GetParam().parts;
  parts.push_back("model.safetensors.index.json");
  expect_error(GetParam().code, parts, [&] { WeightMap::open(folder.path()); });
}

constexpr ErrorCode kFile = ErrorCode::kInvalidFile;
INSTANTIATE_TEST_SUITE_P(
    WeightMap, BadIndices,
    testing::Values(
        BadIndex{"MissingShard", R"({"weight_map":{"a":"model-3.safetensors"}})", ErrorCode::kNotFound, {"model-3"}},
        BadIndex{"NameInAnotherShard", R"({"weight_map":{"a":"model-2.safetensors"}})", kFile, {"\"a\"", "model-2"}},
        BadIndex{"EscapesTheFolder", R"({"weight_map":{"a":"../model-1.safetensors"}})", kFile, {"\"a\"", "../model"}},
        BadIndex{"AbsolutePath", R"({"weight_map":{"a":"/etc/passwd"}})", kFile, {"\"a\"", "/etc/passwd"}},
        BadIndex{"ShardIsTheParent", R"({"weight_map":{"a":".."}})", kFile, {"\"a\""}},
        BadIndex{"ShardIsEmpty", R"({"weight_map":{"a":""}})", kFile, {"\"a\""}},
        BadIndex{"ShardWithNul", R"({"weight_map":{"a":"model-1.safetensors\u0000x"}})", kFile, {"\"a\""}},
        BadIndex{"ShardIsANumber", R"({"weight_map":{"a":1}})", ErrorCode::kInvalidConfig, {"weight_map.a", "1"}},
        BadIndex{"NoWeightMap", R"({"metadata":{}})", ErrorCode::kInvalidConfig, {"weight_map", "missing"}},
        BadIndex{"EmptyWeightMap", R"({"weight_map":{}})", kFile, {"no weights"}},
        BadIndex{"NameTwice",
                 R"({"weight_map":{"a":"model-1.safetensors","a":"model-2.safetensors"}})",
                 kFile,
                 {"\"a\"", "twice"}},
        BadIndex{"NotJson", "weight_map", kFile, {"JSON"}}),
    [](const auto& bad) { return bad.param.name; });

TEST(WeightMap, AWeightInTwoShardsIsAnError) {
  const TempFolder folder;
  write_shards(folder, R"({"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}})");
  write_safetensors(folder / "model-2.safetensors", Tensors{{"b", small()}, {"a", small()}});
  expect_error(ErrorCode::kInvalidWeights, {"\"a\"", "model-1", "model-2"}, [&] { WeightMap::open(folder.path()); });
}

TEST(WeightMap, ListsEveryProblemAtOnce) {
  const TempFolder folder;
  write_safetensors(folder / "f.safetensors", Tensors{{"fits", small()},
                                                      {"shape", small()},
                                                      {"type", counting_tensor({2}, DType::kI64)},
                                                      {"left", small()},
                                                      {"position_ids", counting_tensor({1, 77}, DType::kI64)}});
  WeightMap weights = WeightMap::open(folder / "f.safetensors");
  weights.take("fits", {2, 3});
  weights.take("gone", {7});
  weights.take("gone", {7});
  weights.take("shape", {3, 2});
  weights.take("type", {2});
  weights.ignore("position_ids");
  weights.ignore("not there either");
  const std::string message = expect_error(
      ErrorCode::kInvalidWeights,
      {"f.safetensors", "missing (1)", "gone: expected [7]", "wrong shape (1)", "shape: expected [3, 2], found [2, 3]",
       "wrong type (1)", "type: expected a floating type, found I64", "unused (1)", "left: [2, 3]"},
      [&] { weights.finish(); });
  EXPECT_EQ(message.find("position_ids"), message.npos);
}

TEST(WeightMap, LongListsAreCut) {
  WeightMap weights("synthetic");
  for (int i = 0; i < 25; ++i) weights.take("layer." + std::to_string(i), {4});
  expect_error(ErrorCode::kInvalidWeights, {"synthetic", "missing (25)", "and 5 more"}, [&] { weights.finish(); });
}

TEST(WeightMap, PlaceholdersHaveTheExpectedShapeAndCostNothing) {
  WeightMap weights("synthetic");
  // A terabyte that is never touched.
  const Tensor tensor = weights.take("huge", {1 << 20, 1 << 18});
  EXPECT_EQ(tensor.shape(), (Dims{1 << 20, 1 << 18}));
  EXPECT_TRUE(weights.take("small", {3, 4}).is_contiguous());
  EXPECT_EQ(weights.take("nothing", {0, 5}).numel(), 0);
  const int64_t absurd = int64_t{1} << 40;
  expect_error(ErrorCode::kInvalidConfig, {"\"absurd\"", "impossible shape"},
               [&] { weights.take("absurd", {absurd, absurd}); });
}

TEST(WeightMap, ScopesPutPrefixesInFront) {
  const TempFolder folder;
  write_safetensors(folder / "f.safetensors",
                    Tensors{{"blocks.0.attn.weight", small()}, {"blocks.1.attn.bias", small()}});
  WeightMap weights = WeightMap::open(folder / "f.safetensors");
  const WeightScope block = weights.scope("blocks").scope("0");
  EXPECT_EQ(block.prefix(), "blocks.0.");
  EXPECT_EQ(weights.scope("").prefix(), "");
  EXPECT_EQ(weights.scope("blocks.").scope("").prefix(), "blocks.");
  EXPECT_TRUE(block.contains("attn.weight"));
  EXPECT_EQ(block.shape_of("attn.weight"), (Dims{2, 3}));
  EXPECT_EQ(block.take("attn.weight", {2, 3}).numel(), 6);
  EXPECT_TRUE(block.take_optional("attn.bias", {2, 3}).empty());
  expect_error(ErrorCode::kInvalidWeights, {"blocks.0.attn.bias"}, [&] { block.shape_of("attn.bias"); });
  EXPECT_FALSE(weights.scope("blocks.1").take_optional("attn.bias", {2, 3}).empty());
  EXPECT_NO_THROW(weights.finish());
}

TEST(WeightMap, OptionalWeightsMustStillFit) {
  const TempFolder folder;
  write_safetensors(folder / "f.safetensors", Tensors{{"a", small()}});
  WeightMap weights = WeightMap::open(folder / "f.safetensors");
  weights.take_optional("a", {6});
  expect_error(ErrorCode::kInvalidWeights, {"a: expected [6], found [2, 3]"}, [&] { weights.finish(); });
}

TEST(WeightMap, DefinedWeightsAreViewsOfOthers) {
  const TempFolder folder;
  write_safetensors(folder / "f.safetensors", Tensors{{"qkv", counting_tensor({6, 2}, DType::kF32)}});
  WeightMap weights = WeightMap::open(folder / "f.safetensors");
  const Tensor qkv = weights.peek("qkv");
  weights.define("q", qkv.slice(0, 0, 2));
  weights.define("k", qkv.slice(0, 2, 4));
  weights.define("v", qkv.slice(0, 4, 6));
  weights.consume("qkv");
  expect_error(ErrorCode::kInvalidArgument, {"\"q\"", "already"}, [&] { weights.define("q", qkv); });
  expect_error(ErrorCode::kInvalidArgument, {"\"z\""}, [&] { weights.define("z", Tensor()); });
  expect_error(ErrorCode::kInvalidWeights, {"\"z\""}, [&] { weights.consume("z"); });
  const Tensor k = weights.take("k", {2, 2});
  EXPECT_EQ(k.data_as<float>()[0], 4.0f);
  EXPECT_EQ(k.storage(), qkv.storage()) << "no copy";
  weights.take("q", {2, 2});
  EXPECT_EQ(weights.stored_bytes(), 48u) << "views store nothing";
  expect_error(ErrorCode::kInvalidWeights, {"unused (1)", "v: [2, 2]"}, [&] { weights.finish(); });
}

TEST(WeightMap, GoldenShardsHoldWhatTheOriginalLayoutHolds) {
  const WeightMap folder = WeightMap::open(test::golden("flux-tiny/model/transformer"));
  EXPECT_EQ(folder.files().size(), 2u);
  EXPECT_EQ(folder.names().size(), 126u);
  EXPECT_EQ(folder.parameter_count(), 552384);
  EXPECT_EQ(folder.peek("context_embedder.weight").dtype(), DType::kBF16);
}

}  // namespace
}  // namespace chipmunk
