// Token ids of every prompt of the golden cases, and of the same vocabularies given as other files.
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "scratch_folder.h"
#include "text/tokenizer_factory.h"

namespace chipmunk {
namespace {

using test::golden;
using test::ScratchFolder;

std::vector<std::string> prompts_of(const std::string& name) {
  std::ifstream stream(golden(name) / "prompts.json");
  return nlohmann::json::parse(stream).get<std::vector<std::string>>();
}

std::vector<int32_t> values(const Tensor& tensor) {
  const auto* data = tensor.data_as<int32_t>();
  return {data, data + tensor.numel()};
}

// Compares with the tensors tokens.<kind>.{ids, len, full_len} of the case.
void expect_golden(const Tokenizer& tokenizer, const std::string& name, const std::string& kind) {
  const std::vector<std::string> prompts = prompts_of(name);
  ASSERT_FALSE(prompts.empty());
  const SafetensorsFile expected(golden(name) / "expected.safetensors");
  const std::string prefix = "tokens." + kind;
  const std::vector<int32_t> ids = values(expected.tensor(prefix + ".ids"));
  const std::vector<int32_t> lengths = values(expected.tensor(prefix + ".len"));
  const std::vector<int32_t> full_lengths = values(expected.tensor(prefix + ".full_len"));
  ASSERT_EQ(lengths.size(), prompts.size());
  ASSERT_EQ(ids.size() % prompts.size(), 0u);
  const size_t width = ids.size() / prompts.size();
  for (size_t i = 0; i < prompts.size(); ++i) {
    SCOPED_TRACE(testing::Message() << name << " " << kind << " prompt " << i << ": " << prompts[i]);
    const FixedLengthTokens tokens = encode_to_length(tokenizer, prompts[i], static_cast<int64_t>(width));
    EXPECT_EQ(tokens.ids, TokenIds(ids.begin() + static_cast<std::ptrdiff_t>(i * width),
                                   ids.begin() + static_cast<std::ptrdiff_t>((i + 1) * width)));
    EXPECT_EQ(tokens.length_before_padding, lengths[i]);
    EXPECT_EQ(tokens.full_length, full_lengths[i]);
    EXPECT_EQ(tokens.truncated(), full_lengths[i] > static_cast<int64_t>(width));
  }
}

class Golden : public testing::TestWithParam<std::string> {};

TEST_P(Golden, ClipIds) {
  const auto tokenizer = load_clip_tokenizer(golden(GetParam()) / "model/tokenizer");
  EXPECT_EQ(tokenizer->info().model_max_length, 77);
  expect_golden(*tokenizer, GetParam(), "clip");
}

TEST_P(Golden, T5Ids) {
  const auto tokenizer = load_t5_tokenizer(golden(GetParam()) / "model/tokenizer_2");
  EXPECT_EQ(tokenizer->info().model_max_length, 512);
  EXPECT_FALSE(tokenizer->info().bos_id.has_value());
  expect_golden(*tokenizer, GetParam(), "t5");
}

TEST_P(Golden, T5IdsWithoutConfiguration) {
  const ScratchFolder folder;
  folder.copy_from(golden(GetParam()) / "model/tokenizer_2");
  folder.remove("tokenizer_config.json");
  folder.remove("special_tokens_map.json");
  expect_golden(*load_t5_tokenizer(folder.path()), GetParam(), "t5");
}

INSTANTIATE_TEST_SUITE_P(Flux, Golden, testing::Values("flux-tiny", "flux-schnell-tiny"),
                         [](const auto& instance) { return instance.param == "flux-tiny" ? "Tiny" : "SchnellTiny"; });

TEST(GoldenVariants, T5FromTokenizerJsonAlone) {
  const ScratchFolder folder;
  folder.copy_from(golden("flux-tiny") / "model/tokenizer_2");
  folder.remove("spiece.model");
  expect_golden(*load_t5_tokenizer(folder.path()), "flux-tiny", "t5");
}

TEST(GoldenVariants, T5FromSpieceModelAlone) {
  const ScratchFolder folder;
  folder.copy_from(golden("flux-tiny") / "model/tokenizer_2");
  for (const char* file : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}) folder.remove(file);
  expect_golden(*load_t5_tokenizer(folder.path()), "flux-tiny", "t5");
}

// The same vocabulary as a tokenizer.json, with merges as strings or as pairs.
void expect_clip_json(bool merges_as_pairs) {
  using nlohmann::json;
  const ScratchFolder folder;
  folder.copy_from(golden("flux-tiny") / "model/tokenizer");
  json merges = json::array();
  std::ifstream lines(folder.path() / "merges.txt");
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line.front() == '#') continue;
    const size_t space = line.find(' ');
    merges.push_back(merges_as_pairs ? json{line.substr(0, space), line.substr(space + 1)} : json(line));
  }
  const json root = {{"added_tokens",
                      {{{"id", 712}, {"content", "<|startoftext|>"}, {"normalized", true}, {"special", true}},
                       {{"id", 713}, {"content", "<|endoftext|>"}, {"normalized", false}, {"special", true}}}},
                     {"model",
                      {{"type", "BPE"},
                       {"end_of_word_suffix", "</w>"},
                       {"vocab", json::parse(folder.read("vocab.json"))},
                       {"merges", merges}}}};
  for (const char* file : {"vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"}) {
    folder.remove(file);
  }
  folder.write("tokenizer.json", root.dump());
  const auto tokenizer = load_clip_tokenizer(folder.path());
  EXPECT_FALSE(tokenizer->info().model_max_length.has_value());
  expect_golden(*tokenizer, "flux-tiny", "clip");
}

TEST(GoldenVariants, ClipFromTokenizerJsonWithMergeStrings) { expect_clip_json(false); }
TEST(GoldenVariants, ClipFromTokenizerJsonWithMergePairs) { expect_clip_json(true); }

TEST(GoldenVariants, ClipFlagsOfTheSpecialTokensMapHoldWithoutAddedTokensDecoder) {
  const ScratchFolder folder;
  folder.copy_from(golden("flux-tiny") / "model/tokenizer");
  folder.write("tokenizer_config.json", R"({"bos_token": "<|startoftext|>", "model_max_length": 77})");
  expect_golden(*load_clip_tokenizer(folder.path()), "flux-tiny", "clip");
}

}  // namespace
}  // namespace chipmunk
