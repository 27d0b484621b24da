// The parts that the tokenizers are made of, on inputs small enough to check by hand.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "chipmunk/error.h"
#include "text/added_tokens.h"
#include "text/byte_level_bpe.h"
#include "text/charsmap.h"
#include "text/regex_splitter.h"
#include "text/sentencepiece_file.h"
#include "text/unicode.h"

namespace chipmunk::text {
namespace {

// 256 bytes, 256 bytes at the end of a word, then one token for each merge.
BpeSpec small_bpe(std::vector<std::pair<std::string, std::string>> merges) {
  BpeSpec spec;
  spec.end_of_word_suffix = "</w>";
  char32_t substitute = 256;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
    std::string token;
    append_utf8(token, printable ? byte : substitute++);
    spec.vocab[token] = static_cast<int32_t>(byte);
    spec.vocab[token + "</w>"] = static_cast<int32_t>(256 + byte);
  }
  for (const auto& [left, right] : merges) spec.vocab.emplace(left + right, static_cast<int32_t>(spec.vocab.size()));
  spec.merges = std::move(merges);
  return spec;
}

TokenIds encode(const ByteLevelBpe& bpe, std::string_view word) {
  TokenIds ids;
  bpe.encode_word(word, ids);
  return ids;
}

TEST(ByteLevelBpe, MergesByRankThenFromTheLeft) {
  const ByteLevelBpe bpe(small_bpe({{"b", "c</w>"}, {"a", "b"}, {"a", "a"}, {"aa", "aa"}}));
  EXPECT_EQ(encode(bpe, "abc"), (TokenIds{'a', 512}));
  EXPECT_EQ(encode(bpe, "abd"), (TokenIds{513, 256 + 'd'}));
  EXPECT_EQ(encode(bpe, "aaax"), (TokenIds{514, 'a', 256 + 'x'}));
  EXPECT_EQ(encode(bpe, "aaaaaax"), (TokenIds{515, 514, 256 + 'x'}));
  EXPECT_EQ(encode(bpe, "q"), (TokenIds{256 + 'q'}));
  EXPECT_EQ(encode(bpe, "\xc3\xa9"), (TokenIds{0xc3, 256 + 0xa9}));
}

TEST(AddedTokens, LongestMatchWins) {
  const AddedTokenMatcher matcher({{"<a>", 1}, {"<a>b", 2}, {"", 3}});
  const auto pieces = matcher.split("x<a>b<a>");
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_EQ(pieces[0].text, "x");
  EXPECT_EQ(pieces[0].id, AddedTokenMatcher::kNoToken);
  EXPECT_EQ(pieces[1].id, 2);
  EXPECT_EQ(pieces[2].id, 1);
  EXPECT_TRUE(matcher.split("").empty());
}

TEST(AddedTokens, StripsWhiteSpaceAsAsked) {
  AddedToken left{"<l>", 1};
  left.strip_left = true;
  AddedToken right{"<r>", 2};
  right.strip_right = true;
  const AddedTokenMatcher matcher({left, right});
  const auto pieces = matcher.split("a \t<l> b <r>\u00a0 c");
  ASSERT_EQ(pieces.size(), 5u);
  EXPECT_EQ(pieces[0].text, "a");
  EXPECT_EQ(pieces[2].text, " b ");
  EXPECT_EQ(pieces[4].text, "c");
}

TEST(AddedTokens, SingleWordsDoNotMatchInsideWords) {
  AddedToken word{"cat", 5};
  word.single_word = true;
  const AddedTokenMatcher matcher({word});
  EXPECT_EQ(matcher.split("concat").size(), 1u);
  EXPECT_EQ(matcher.split("cats").size(), 1u);
  EXPECT_EQ(matcher.split("\u00e9cat").size(), 1u);
  EXPECT_EQ(matcher.split("a cat.").size(), 3u);
}

TEST(RegexSplitter, GivesMatchesOnly) {
  const RegexSplitter splitter(R"(\p{L}+|\p{N})");
  EXPECT_EQ(splitter.matches("\u00e9t\u00e9 12!"), (std::vector<std::string_view>{"\u00e9t\u00e9", "1", "2"}));
  EXPECT_TRUE(splitter.matches("").empty());
  EXPECT_EQ(RegexSplitter("a*").matches("baab"), (std::vector<std::string_view>{"aa"}));
}

TEST(RegexSplitter, RefusesBrokenExpressions) {
  try {
    RegexSplitter splitter("(a");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidConfig);
  }
}

TEST(Unicode, StripAndCollapse) {
  EXPECT_EQ(strip_white_space(" a b ", true, true), "a b");
  EXPECT_EQ(strip_white_space(" a b ", false, true), " a b");
  EXPECT_EQ(strip_white_space(" a b ", true, false), "a b ");
  EXPECT_EQ(strip_white_space("  ", true, true), "");
  EXPECT_EQ(strip_white_space("  ", false, false), "  ");
  EXPECT_EQ(collapse_white_space(" a \u2003\tb\u0085"), " a b ");
  EXPECT_EQ(collapse_white_space("a\u180eb\u200bc"), "a\u180eb\u200bc") << "neither is white space";
}

TEST(Unicode, GraphemeClusters) {
  EXPECT_EQ(grapheme_end("ab", 0), 1u);
  EXPECT_EQ(grapheme_end("e\u0301x", 0), 3u);
  EXPECT_EQ(grapheme_end("\r\nx", 0), 2u);
  const std::string family = "\U0001F468\u200d\U0001F469";
  EXPECT_EQ(grapheme_end(family, 0), family.size());
}

TEST(CharsMap, EmptyIsIdentity) { EXPECT_EQ(CharsMap("", "test").normalize("a\u00e9"), "a\u00e9"); }

TEST(CharsMap, DamagedMapsAreRefusedOrFail) {
  using namespace std::string_view_literals;
  for (const std::string_view blob :
       {"\x04"sv, "\x00\x00\x00\x00"sv, "\x08\x00\x00\x00\x00\x00\x00\x00\x00"sv,
        "\x05\x00\x00\x00\x00\x00\x00\x00\x00"sv, "\x04\x00\x00\x00\x00\x00\x00\x00x"sv}) {
    EXPECT_THROW(CharsMap(blob, "test"), Error) << testing::PrintToString(blob);
  }
  EXPECT_THROW(CharsMap("\x04\x00\x00\x00\x00\x00\x00\x00\xff\x00"sv, "test"), Error) << "not UTF-8";
  // A root that points far behind the trie.
  const CharsMap outside("\x04\x00\x00\x00\x00\xff\xff\xffx\x00"sv, "test");
  EXPECT_THROW(outside.normalize("a"), Error);
}

UnigramSpec small_unigram() {
  UnigramSpec spec;
  spec.file = "test";
  spec.pieces = {{"<unk>", 0, UnigramSpec::PieceType::kUnknown}, {"a", -1}, {"b", -1.5F}, {"ab", -2}};
  return spec;
}

TEST(Unigram, TakesTheMostProbableSplit) {
  UnigramSpec spec = small_unigram();
  TokenIds ids;
  UnigramModel(spec).encode_word("abb", ids);
  EXPECT_EQ(ids, (TokenIds{3, 2}));
  ids.clear();
  spec.pieces[3].score = -3;
  UnigramModel(spec).encode_word("abzz a", ids);
  EXPECT_EQ(ids, (TokenIds{1, 2, 0, 1})) << "unknown characters next to each other are one token";
}

TEST(SentencepieceFile, WrittenModelsReadBack) {
  const UnigramSpec spec = small_unigram();
  const UnigramSpec read = parse_sentencepiece_model(write_sentencepiece_model(spec), "test");
  ASSERT_EQ(read.pieces.size(), spec.pieces.size());
  for (size_t id = 0; id < spec.pieces.size(); ++id) {
    EXPECT_EQ(read.pieces[id].text, spec.pieces[id].text);
    EXPECT_EQ(read.pieces[id].score, spec.pieces[id].score);
    EXPECT_EQ(read.pieces[id].type, spec.pieces[id].type);
  }
  EXPECT_EQ(read.unk_id, 0);
  EXPECT_FALSE(read.byte_fallback);
}

TEST(SentencepieceFile, EveryCutIsRefusedOrLoads) {
  const std::string whole = write_sentencepiece_model(small_unigram());
  for (size_t length = 0; length < whole.size(); ++length) {
    try {
      parse_sentencepiece_model(whole.substr(0, length), "test");
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ErrorCode::kInvalidFile) << error.what();
    }
  }
}

}  // namespace
}  // namespace chipmunk::text
