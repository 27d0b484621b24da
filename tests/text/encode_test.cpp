// What both tokenizers do with text of every kind, beyond the golden prompts.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "chipmunk/error.h"
#include "scratch_folder.h"
#include "text/tokenizer_factory.h"
#include "text/unicode.h"

namespace chipmunk {
namespace {

using test::golden;
using test::ScratchFolder;

// Loaded once; the pieces of the tests below are those of flux-tiny's vocabularies.
const Tokenizer& clip() {
  static const auto tokenizer = load_clip_tokenizer(golden("flux-tiny") / "model/tokenizer");
  return *tokenizer;
}
const Tokenizer& t5() {
  static const auto tokenizer = load_t5_tokenizer(golden("flux-tiny") / "model/tokenizer_2");
  return *tokenizer;
}

constexpr int32_t kBos = 712;
constexpr int32_t kEos = 713;

class BothTokenizers : public testing::TestWithParam<std::string> {
 protected:
  const Tokenizer& tokenizer() const { return GetParam() == "Clip" ? clip() : t5(); }
  TokenIds empty() const { return tokenizer().encode(""); }
};

INSTANTIATE_TEST_SUITE_P(Text, BothTokenizers, testing::Values("Clip", "T5"),
                         [](const auto& instance) { return instance.param; });

TEST_P(BothTokenizers, EmptyTextIsSpecialTokensAlone) {
  EXPECT_EQ(empty(), GetParam() == "Clip" ? (TokenIds{kBos, kEos}) : TokenIds{1});
}

TEST_P(BothTokenizers, WhiteSpaceAloneIsEmpty) {
  for (const char* text : {" ", "     ", "\t", "\n \r\n", "\u00a0", " \u3000 "}) {
    EXPECT_EQ(tokenizer().encode(text), empty()) << testing::PrintToString(std::string(text));
  }
}

TEST_P(BothTokenizers, AmountOfWhiteSpaceDoesNotMatter) {
  EXPECT_EQ(tokenizer().encode("  a\t\n photo   of a cat "), tokenizer().encode("a photo of a cat"));
}

TEST_P(BothTokenizers, NulIsACharacterLikeAnyOther) {
  const std::string text("a cat\0 and a dog", 16);
  EXPECT_GT(tokenizer().encode(text).size(), tokenizer().encode("a cat").size() + 2);
  EXPECT_NE(tokenizer().encode(std::string(1, '\0')), empty());
}

TEST_P(BothTokenizers, TenThousandWords) {
  std::string text;
  for (int i = 0; i < 10'000; ++i) text += i % 3 == 0 ? "photo " : "cat ";
  const TokenIds ids = tokenizer().encode(text);
  EXPECT_GE(ids.size(), 10'000u);
  const FixedLengthTokens cut = pad_or_truncate(ids, 77, tokenizer().info());
  EXPECT_TRUE(cut.truncated());
  EXPECT_EQ(cut.full_length, static_cast<int64_t>(ids.size()));
  EXPECT_EQ(cut.length_before_padding, 77);
  EXPECT_EQ(cut.ids.size(), 77u);
  EXPECT_EQ(cut.ids.back(), tokenizer().info().eos_id);
  EXPECT_TRUE(std::equal(cut.ids.begin(), cut.ids.end() - 1, ids.begin()));
}

// A word's time must not grow with the square of its length: this takes minutes if it does.
TEST_P(BothTokenizers, WordOfAMillionLetters) {
  EXPECT_GT(tokenizer().encode(std::string(1'000'000, 'a')).size(), 1000u);
}

TEST_P(BothTokenizers, RandomCodePointsGiveIdsOfTheVocabulary) {
  std::mt19937 random(20240517);
  const std::vector<std::string> literals = {"<|endoftext|>", "</s>", "<extra_id_5>", "<pad>", " ",
                                             "\u2581",        "'s",   "\r\n"};
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (size_t i = random() % 40; i-- > 0;) {
      char32_t code_point = static_cast<char32_t>(random() % (random() % 2 == 0 ? 0x300 : 0x110000));
      if (code_point >= 0xd800 && code_point < 0xe000) code_point = U' ';
      if (random() % 8 == 0) {
        text += literals[random() % literals.size()];
      } else {
        text::append_utf8(text, code_point);
      }
    }
    const TokenIds ids = tokenizer().encode(text);
    ASSERT_GE(ids.size(), empty().size());
    EXPECT_EQ(ids.back(), tokenizer().info().eos_id);
    const auto [low, high] = std::minmax_element(ids.begin(), ids.end());
    ASSERT_GE(*low, 0);
    ASSERT_LT(*high, tokenizer().info().vocab_size);
  }
}

// Random bytes either are valid text or the error names where they are not.
TEST_P(BothTokenizers, RandomBytesNeverCrash) {
  std::mt19937 random(7);
  for (int round = 0; round < 3000; ++round) {
    std::string bytes;
    for (size_t i = random() % 12; i-- > 0;) bytes += static_cast<char>(random() % (random() % 2 == 0 ? 128 : 256));
    try {
      tokenizer().encode(bytes);
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ErrorCode::kInvalidText);
      ASSERT_NE(std::string_view(error.what()).find("byte offset "), std::string_view::npos);
    }
  }
}

TEST_P(BothTokenizers, InvalidUtf8NamesTheByteOffset) {
  const struct {
    const char* name;
    std::string text;
    int offset;
  } cases[] = {
      {"lone continuation byte", "abc\x80z", 3},
      {"overlong slash", "\xc0\xaf", 0},
      {"surrogate", "a\xed\xa0\x80", 1},
      {"above U+10FFFF", "ab\xf4\x90\x80\x80", 2},
      {"cut at the end", "caf\xc3", 3},
      {"byte that never occurs", "\xff", 0},
      {"Latin-1", "na\xefve", 2},
      {"behind a special token", "</s>\xfe", 4},
  };
  for (const auto& bad : cases) {
    SCOPED_TRACE(bad.name);
    try {
      tokenizer().encode(bad.text);
      FAIL() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidText);
      EXPECT_NE(std::string(error.what()).find("byte offset " + std::to_string(bad.offset) + " "), std::string::npos)
          << error.what();
    }
  }
}

TEST_P(BothTokenizers, ThreadsGiveTheSameIds) {
  const TokenIds expected = tokenizer().encode("A cat holding a sign that says hello world");
  std::vector<TokenIds> got(4);
  std::vector<std::thread> threads;
  threads.reserve(got.size());
  for (TokenIds& ids : got) {
    threads.emplace_back([&ids, this] {
      for (int i = 0; i < 50; ++i) ids = tokenizer().encode("A cat holding a sign that says hello world");
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const TokenIds& ids : got) EXPECT_EQ(ids, expected);
}

TEST(PadOrTruncate, PadsBehind) {
  TokenizerInfo info;
  info.bos_id = 7;
  info.eos_id = 8;
  info.pad_id = 9;
  const FixedLengthTokens tokens = pad_or_truncate({7, 1, 2, 8}, 6, info);
  EXPECT_EQ(tokens.ids, (TokenIds{7, 1, 2, 8, 9, 9}));
  EXPECT_EQ(tokens.length_before_padding, 4);
  EXPECT_EQ(tokens.full_length, 4);
  EXPECT_FALSE(tokens.truncated());
}

TEST(PadOrTruncate, KeepsTheEndTokenLast) {
  TokenizerInfo info;
  info.bos_id = 7;
  info.eos_id = 8;
  const FixedLengthTokens tokens = pad_or_truncate({7, 1, 2, 3, 8}, 4, info);
  EXPECT_EQ(tokens.ids, (TokenIds{7, 1, 2, 8}));
  EXPECT_EQ(tokens.full_length, 5);
  EXPECT_TRUE(tokens.truncated());
  EXPECT_FALSE(pad_or_truncate({7, 1, 2, 3, 8}, 5, info).truncated());
}

TEST(PadOrTruncate, RefusesLengthsBelowTheSpecialTokens) {
  TokenizerInfo info;
  EXPECT_EQ(pad_or_truncate({1, 0}, 1, info).ids, TokenIds{0});
  EXPECT_THROW(pad_or_truncate({1, 0}, 0, info), Error);
  EXPECT_THROW(pad_or_truncate({1, 0}, -1, info), Error);
  info.bos_id = 5;
  EXPECT_THROW(pad_or_truncate({5, 1, 0}, 1, info), Error);
}

TEST(ClipText, CapitalsAndNormalizationFormDoNotMatter) {
  EXPECT_EQ(clip().encode("A CAFÉ"), clip().encode("a café"));
  EXPECT_EQ(clip().encode("cafe\u0301"), clip().encode("caf\u00e9"));
  EXPECT_EQ(clip().encode("\u0130"), clip().encode("i\u0307"));
  EXPECT_EQ(clip().encode("\u03a3"), clip().encode("\u03c3")) << "no rule for a sigma at the end of a word";
}

TEST(ClipText, MarkersAreMatchedBeforeOrAfterLowerCasingAsTheirFilesSay) {
  EXPECT_EQ(clip().encode("<|startoftext|><|endoftext|>"), (TokenIds{kBos, kBos, kEos, kEos}));
  // Only the begin token is marked "normalized", so only it is found in lower-cased text.
  EXPECT_EQ(clip().encode("<|STARTOFTEXT|>"), (TokenIds{kBos, kBos, kEos}));
  EXPECT_GT(clip().encode("<|ENDOFTEXT|>").size(), 3u);
}

TEST(ClipText, MarkerInCapitalsEndsAWord) {
  // "|>!" is one run of symbols in plain text, but two behind a marker.
  EXPECT_EQ(clip().encode("<|ENDOFTEXT|>!"), clip().encode("<|ENDOFTEXT|> !"));
  EXPECT_NE(clip().encode("<|ENDOFTEXTS|>!"), clip().encode("<|ENDOFTEXTS|> !"));
}

TEST(T5Text, SpecialTokensAreMatchedLiterally) {
  EXPECT_EQ(t5().encode("</s> <pad> <unk> <extra_id_0> <extra_id_99>"), (TokenIds{1, 0, 2, 483, 384, 1}));
  EXPECT_EQ(t5().encode("<pad><pad>"), (TokenIds{0, 0, 1}));
}

TEST(T5Text, SpecialTokensWithoutTokenizerJson) {
  const auto tokenizer = load_t5_tokenizer(golden("flux-schnell-tiny") / "model/tokenizer_2");
  EXPECT_EQ(tokenizer->encode("<extra_id_0><extra_id_99>"), (TokenIds{419, 320, 1}));
  EXPECT_EQ(tokenizer->info().vocab_size, 420);
}

TEST(T5Text, CombiningMarksFollowTheFastTokenizer) {
  // A cluster of up to five bytes is replaced as a whole by its shortest entry: the accent on a full-width A is lost.
  const auto tokenizer = load_t5_tokenizer(golden("flux-schnell-tiny") / "model/tokenizer_2");
  EXPECT_EQ(tokenizer->encode("\uff21\u0301"), tokenizer->encode("A"));
  EXPECT_EQ(tokenizer->encode("cafe\u0301"), tokenizer->encode("caf\u00e9"));
  EXPECT_EQ(tokenizer->encode("\uff21\uff22"), tokenizer->encode("AB"));
}

TEST(ModelMaxLength, SentinelsAndAbsenceMeanNoLimit) {
  for (const char* value : {"1000000000000000019884624838656", "1e30", "null"}) {
    const ScratchFolder folder;
    folder.copy_from(golden("flux-tiny") / "model/tokenizer");
    folder.replace("tokenizer_config.json", "\"model_max_length\": 77", std::string("\"model_max_length\": ") + value);
    EXPECT_FALSE(load_clip_tokenizer(folder.path())->info().model_max_length.has_value()) << value;
  }
}

TEST(PadToken, ComesFromTheConfigurationAndThenFromTheMap) {
  const ScratchFolder folder;
  folder.copy_from(golden("flux-tiny") / "model/tokenizer");
  EXPECT_EQ(load_clip_tokenizer(folder.path())->info().pad_id, kEos);
  folder.replace("tokenizer_config.json", "\"pad_token\": \"<|endoftext|>\"", "\"pad_token\": \"!\"");
  EXPECT_EQ(load_clip_tokenizer(folder.path())->info().pad_id, 0);
  folder.remove("tokenizer_config.json");
  folder.replace("special_tokens_map.json", "\"pad_token\": \"<|endoftext|>\"", "\"pad_token\": \"#\"");
  EXPECT_EQ(load_clip_tokenizer(folder.path())->info().pad_id, 2);
}

}  // namespace
}  // namespace chipmunk
