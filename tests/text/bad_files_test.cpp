// Tokenizer folders that are missing something or contradict themselves: the right code, and a message that says where.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "chipmunk/error.h"
#include "scratch_folder.h"
#include "text/tokenizer_factory.h"

namespace chipmunk {
namespace {

using test::golden;
using test::ScratchFolder;

struct BadFolder {
  std::string name;
  std::string source;  // "clip", "t5" (with tokenizer.json) or "spiece"
  std::function<void(const ScratchFolder&)> damage;
  ErrorCode code;
  std::vector<std::string> in_message;
};

class BadTokenizerFolder : public testing::TestWithParam<BadFolder> {};

TEST_P(BadTokenizerFolder, IsRefused) {
  const BadFolder& bad = GetParam();
  const ScratchFolder folder;
  folder.copy_from(bad.source == "clip" ? golden("flux-tiny") / "model/tokenizer"
                   : bad.source == "t5" ? golden("flux-tiny") / "model/tokenizer_2"
                                        : golden("flux-schnell-tiny") / "model/tokenizer_2");
  bad.damage(folder);
  try {
    bad.source == "clip" ? load_clip_tokenizer(folder.path()) : load_t5_tokenizer(folder.path());
    FAIL() << "no error";
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(to_string(error.code()), to_string(bad.code)) << message;
    EXPECT_LT(message.size(), 500u) << message;
    for (const std::string& part : bad.in_message) EXPECT_NE(message.find(part), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_NE(error.where().find(folder.path().string()), std::string::npos) << error.where();
    RecordProperty("message", message);
  }
}

std::function<void(const ScratchFolder&)> without(const std::string& file) {
  return [file](const ScratchFolder& folder) { folder.remove(file); };
}
std::function<void(const ScratchFolder&)> with(const std::string& file, const std::string& content) {
  return [file, content](const ScratchFolder& folder) { folder.write(file, content); };
}
std::function<void(const ScratchFolder&)> edit(const std::string& file, const std::string& from,
                                               const std::string& to) {
  return [file, from, to](const ScratchFolder& folder) { folder.replace(file, from, to); };
}
std::function<void(const ScratchFolder&)> cut(const std::string& file, size_t bytes) {
  return [file, bytes](const ScratchFolder& folder) { folder.write(file, folder.read(file).substr(0, bytes)); };
}

const BadFolder kClipCases[] = {
    {"VocabMissing", "clip", without("vocab.json"), ErrorCode::kNotFound, {"vocab.json"}},
    {"MergesMissing", "clip", without("merges.txt"), ErrorCode::kNotFound, {"merges.txt"}},
    {"FolderEmpty",
     "clip",
     [](const ScratchFolder& folder) {
       for (const char* file : {"vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"}) {
         folder.remove(file);
       }
     },
     ErrorCode::kNotFound,
     {"vocab.json"}},
    {"VocabCut", "clip", cut("vocab.json", 1000), ErrorCode::kInvalidFile, {"vocab.json", "expected JSON"}},
    {"VocabEmptyFile", "clip", with("vocab.json", ""), ErrorCode::kInvalidFile, {"vocab.json"}},
    {"VocabIsAnArray", "clip", with("vocab.json", "[1, 2]"), ErrorCode::kInvalidFile, {"found array"}},
    {"VocabIsAFolder",
     "clip",
     [](const ScratchFolder& folder) {
       folder.remove("vocab.json");
       std::filesystem::create_directory(folder.path() / "vocab.json");
     },
     ErrorCode::kIo,
     {"found a folder"}},
    {"IdNegative", "clip", edit("vocab.json", "\"!\": 0", "\"!\": -1"), ErrorCode::kInvalidFile, {"\"!\"", "found -1"}},
    {"IdTooLarge",
     "clip",
     edit("vocab.json", "\"!\": 0", "\"!\": 4294967296"),
     ErrorCode::kInvalidFile,
     {"4294967296"}},
    {"IdIsAFraction", "clip", edit("vocab.json", "\"!\": 0", "\"!\": 0.5"), ErrorCode::kInvalidFile, {"found 0.5"}},
    {"IdIsAString", "clip", edit("vocab.json", "\"!\": 0", "\"!\": \"0\""), ErrorCode::kInvalidFile, {"found \"0\""}},
    {"ByteMissing", "clip", edit("vocab.json", "\"!\": 0", "\"!!!!\": 0"), ErrorCode::kInvalidFile, {"byte 0x21"}},
    {"VocabNotUtf8", "clip", edit("vocab.json", "\"!\"", "\"\xff\""), ErrorCode::kInvalidFile, {"expected JSON"}},
    {"MergeOfUnknownTokens",
     "clip",
     edit("merges.txt", "t h\n", "t h\nqqq zzz\n"),
     ErrorCode::kInvalidFile,
     {"merges.txt", "merge 2", "\"qqqzzz\""}},
    {"MergeOfThreeTokens",
     "clip",
     edit("merges.txt", "t h\n", "t h e\n"),
     ErrorCode::kInvalidFile,
     {"merges.txt", "line 2", "\"t h e\""}},
    {"MergeOfOneToken", "clip", edit("merges.txt", "t h\n", "th\n"), ErrorCode::kInvalidFile, {"line 2"}},
    {"ConfigBroken",
     "clip",
     with("tokenizer_config.json", "{\"model_max_length\": "),
     ErrorCode::kInvalidFile,
     {"tokenizer_config.json"}},
    {"ConfigIsAnArray",
     "clip",
     with("tokenizer_config.json", "[]"),
     ErrorCode::kInvalidFile,
     {"expected a JSON object"}},
    {"MaxLengthZero",
     "clip",
     edit("tokenizer_config.json", "\"model_max_length\": 77", "\"model_max_length\": 0"),
     ErrorCode::kInvalidConfig,
     {"model_max_length", "found 0"}},
    {"MaxLengthIsAString",
     "clip",
     edit("tokenizer_config.json", "\"model_max_length\": 77", "\"model_max_length\": \"77\""),
     ErrorCode::kInvalidConfig,
     {"model_max_length", "\"77\""}},
    {"PadTokenUnknown",
     "clip",
     edit("tokenizer_config.json", "\"pad_token\": \"<|endoftext|>\"", "\"pad_token\": \"<nothing>\""),
     ErrorCode::kInvalidConfig,
     {"pad_token", "<nothing>"}},
    {"EosTokenIsANumber",
     "clip",
     edit("tokenizer_config.json", "\"eos_token\": \"<|endoftext|>\"", "\"eos_token\": 3"),
     ErrorCode::kInvalidFile,
     {"eos_token"}},
    {"AddedTokenContradictsVocab",
     "clip",
     edit("tokenizer_config.json", "\"713\"", "\"714\""),
     ErrorCode::kInvalidFile,
     {"<|endoftext|>", "713", "714"}},
    {"AddedTokenIdIsNoNumber",
     "clip",
     edit("tokenizer_config.json", "\"713\"", "\"last\""),
     ErrorCode::kInvalidFile,
     {"added_tokens_decoder", "\"last\""}},
    {"TokenizerJsonOfUnigramKind",
     "clip",
     [](const ScratchFolder& folder) {
       folder.remove("vocab.json");
       folder.remove("merges.txt");
       folder.copy_from(golden("flux-tiny") / "model/tokenizer_2");
     },
     ErrorCode::kUnsupported,
     {"expected a BPE model", "unigram"}},
    {"TokenizerJsonOfWordPieceKind",
     "clip",
     [](const ScratchFolder& folder) {
       folder.remove("vocab.json");
       folder.remove("merges.txt");
       folder.write("tokenizer.json", R"({"model": {"type": "WordPiece", "vocab": {}}})");
     },
     ErrorCode::kUnsupported,
     {"tokenizer.json", "\"WordPiece\""}},
};

const BadFolder kT5Cases[] = {
    {"NeitherFile", "spiece", without("spiece.model"), ErrorCode::kNotFound, {"spiece.model", "tokenizer.json"}},
    {"SpieceCut", "spiece", cut("spiece.model", 5000), ErrorCode::kInvalidFile, {"spiece.model", "ends early"}},
    {"SpieceEmpty", "spiece", with("spiece.model", ""), ErrorCode::kInvalidFile, {"found 0 among 0 pieces"}},
    {"SpieceIsText",
     "spiece",
     with("spiece.model", "version https://git-lfs.github.com/spec/v1"),
     ErrorCode::kInvalidFile,
     {"sentencepiece model"}},
    {"SpieceOfBpeKind",
     "spiece",
     [](const ScratchFolder& folder) {
       // A second trainer_spec (field 2) with model_type (field 3) = BPE (2); later fields win.
       folder.write("spiece.model", folder.read("spiece.model") + std::string("\x12\x02\x18\x02", 4));
     },
     ErrorCode::kUnsupported,
     {"unigram", "found type 2"}},
    {"SpieceWithTwoEqualPieces",
     "spiece",
     [](const ScratchFolder& folder) {
       folder.write("spiece.model", folder.read("spiece.model") + std::string("\x0a\x03\x0a\x01,", 5));
     },
     ErrorCode::kInvalidFile,
     {"sentencepiece refuses"}},
    {"ExtraIdsTooMany",
     "spiece",
     with("tokenizer_config.json", "{\"extra_ids\": 2000000000}"),
     ErrorCode::kInvalidConfig,
     {"extra_ids", "2000000000"}},
    {"AddedTokenContradictsPieces",
     "spiece",
     edit("tokenizer_config.json", "\"1\": {", "\"5\": {"),
     ErrorCode::kInvalidFile,
     {"</s>"}},
    {"JsonBroken", "t5", cut("tokenizer.json", 20000), ErrorCode::kInvalidFile, {"tokenizer.json", "expected JSON"}},
    {"JsonWithoutModel", "t5", with("tokenizer.json", "{}"), ErrorCode::kInvalidFile, {"\"model\""}},
    {"JsonOfBpeKind",
     "t5",
     with("tokenizer.json", R"({"model": {"type": "BPE", "vocab": {}, "merges": []}})"),
     ErrorCode::kUnsupported,
     {"expected a unigram model"}},
    {"JsonOfUnknownKind",
     "t5",
     with("tokenizer.json", R"({"model": {"type": "WordLevel"}})"),
     ErrorCode::kUnsupported,
     {"\"WordLevel\""}},
    {"JsonPieceWithoutScore",
     "t5",
     with("tokenizer.json", R"({"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>"]]}})"),
     ErrorCode::kInvalidFile,
     {"piece 0"}},
    {"JsonScoreNotFinite",
     "t5",
     with("tokenizer.json", R"({"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", -1e300]]}})"),
     ErrorCode::kInvalidFile,
     {"not finite"}},
    {"JsonUnkIdOutside",
     "t5",
     with("tokenizer.json", R"({"model": {"type": "Unigram", "unk_id": 9, "vocab": [["<unk>", 0]]}})"),
     ErrorCode::kInvalidFile,
     {"unk_id", "found 9"}},
    {"JsonUnknownNormalizer",
     "t5",
     edit("tokenizer.json", "\"Strip\"", "\"BertNormalizer\""),
     ErrorCode::kUnsupported,
     {"BertNormalizer"}},
    {"JsonUnknownPreTokenizer",
     "t5",
     edit("tokenizer.json", "\"Metaspace\"", "\"Punctuation\""),
     ErrorCode::kUnsupported,
     {"Punctuation"}},
    {"JsonCharsmapNotBase64",
     "t5",
     edit("tokenizer.json", "\"ACAAAAA", "\"A*AAAAA"),
     ErrorCode::kInvalidFile,
     {"base64"}},
    {"JsonCharsmapDamaged",
     "t5",
     edit("tokenizer.json", "\"ACAAAAA", "\"////AAA"),
     ErrorCode::kInvalidFile,
     {"character map"}},
    {"JsonAddedTokenWithoutId",
     "t5",
     with("tokenizer.json", R"({"added_tokens": [{"content": "<x>"}], "model": {"type": "Unigram"}})"),
     ErrorCode::kInvalidFile,
     {"<x>"}},
};

const auto kCaseName = [](const testing::TestParamInfo<BadFolder>& instance) { return instance.param.name; };
INSTANTIATE_TEST_SUITE_P(Clip, BadTokenizerFolder, testing::ValuesIn(kClipCases), kCaseName);
INSTANTIATE_TEST_SUITE_P(T5, BadTokenizerFolder, testing::ValuesIn(kT5Cases), kCaseName);

TEST(BadTokenizerPath, MissingFolderIsNotFound) {
  const std::filesystem::path nowhere = golden("flux-tiny") / "no/such/folder";
  for (auto* load : {&load_clip_tokenizer, &load_t5_tokenizer}) {
    try {
      load(nowhere);
      FAIL() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kNotFound);
      EXPECT_EQ(error.where(), nowhere.string());
    }
  }
}

}  // namespace
}  // namespace chipmunk
