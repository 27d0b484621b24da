#include "io/png.h"

#include <random>

#include "io_test_util.h"

namespace chipmunk {
namespace {

using test::expect_error;
using test::TempFolder;

std::vector<uint8_t> noise(int width, int height) {
  std::vector<uint8_t> pixels(static_cast<size_t>(width * height * 3));
  std::mt19937 random(7);
  for (uint8_t& value : pixels) value = static_cast<uint8_t>(random());
  return pixels;
}

/// The texts of a round trip.
std::vector<PngText> through_png(const std::vector<PngText>& texts) {
  return decode_png(encode_png(1, 1, noise(1, 1), texts), "test").texts;
}

TEST(Png, RoundTrip) {
  const TempFolder folder;
  for (const auto& [width, height] : {std::pair{1, 1}, {7, 5}, {64, 33}, {300, 2}}) {
    const std::vector<uint8_t> pixels = noise(width, height);
    write_png(folder / "out.png", width, height, pixels);
    const PngImage image = read_png(folder / "out.png");
    EXPECT_EQ(image.width, width);
    EXPECT_EQ(image.height, height);
    EXPECT_EQ(image.pixels, pixels);
    EXPECT_TRUE(image.texts.empty());
  }
  EXPECT_EQ(folder.list(), std::vector<std::string>{"out.png"});
}

TEST(Png, TextsKeepTheirCharacters) {
  const std::vector<PngText> texts = {{kPngParametersKey, "a red circle\nSteps: 4, Seed: 1"},
                                      {"prompt", "\u00e9t\u00e9 \u732b \U0001F600"},
                                      {"empty", ""},
                                      {"long", std::string(100000, 'x')}};
  const std::vector<PngText> got = through_png(texts);
  ASSERT_EQ(got.size(), texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    EXPECT_EQ(got[i].key, texts[i].key);
    EXPECT_EQ(got[i].value, texts[i].value);
  }
}

TEST(Png, AsciiIsStoredSoThatEveryToolReadsIt) {
  const std::string ascii = encode_png(1, 1, noise(1, 1), std::vector<PngText>{{kPngParametersKey, "a cat"}});
  EXPECT_NE(ascii.find(std::string("tEXtparameters\0a cat", 20)), ascii.npos);
  const std::string other = encode_png(1, 1, noise(1, 1), std::vector<PngText>{{kPngParametersKey, "\u00e9"}});
  EXPECT_NE(other.find("iTXtparameters"), other.npos);
}

TEST(Png, TheSameImageGivesTheSameBytes) {
  const std::vector<PngText> texts = {{"parameters", "x"}};
  EXPECT_EQ(encode_png(40, 30, noise(40, 30), texts), encode_png(40, 30, noise(40, 30), texts));
}

TEST(Png, WriterRejectsBadArguments) {
  const std::vector<uint8_t> pixel = noise(1, 1);
  constexpr ErrorCode kArgument = ErrorCode::kInvalidArgument;
  const auto write = [&](const std::string& key, const std::string& value) {
    return [&pixel, key, value] { encode_png(1, 1, pixel, std::vector<PngText>{{key, value}}); };
  };
  expect_error(kArgument, {"0x1"}, [&] { encode_png(0, 1, pixel); });
  expect_error(kArgument, {"1x-1"}, [&] { encode_png(1, -1, pixel); });
  expect_error(kArgument, {"20000"}, [&] { encode_png(20000, 1, pixel); });
  expect_error(kArgument, {"expected 12 bytes, found 3"}, [&] { encode_png(2, 2, pixel); });
  expect_error(kArgument, {"key"}, write("", "x"));
  expect_error(kArgument, {"key"}, write(std::string(80, 'k'), "x"));
  expect_error(kArgument, {"key"}, write("\u00e9", "x"));
  expect_error(kArgument, {"key"}, write(" k", "x"));
  for (const std::string bad : {"\xff", "\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "a\xe2\x82"}) {
    expect_error(ErrorCode::kInvalidText, {"\"k\"", "UTF-8"}, write("k", bad));
  }
  expect_error(ErrorCode::kInvalidText, {"NUL"}, write("k", std::string("a\0b", 3)));
}

TEST(Png, UnwritablePlaces) {
  const TempFolder folder;
  const std::vector<uint8_t> pixel = noise(1, 1);
  expect_error(ErrorCode::kIo, {"nowhere"}, [&] { write_png(folder / "nowhere/out.png", 1, 1, pixel); });
  expect_error(ErrorCode::kIo, {"No space left"}, [&] { write_png("/dev/full", 1, 1, pixel); });
  EXPECT_TRUE(folder.list().empty());
}

TEST(Png, BadFiles) {
  const TempFolder folder;
  constexpr ErrorCode kFile = ErrorCode::kInvalidFile;
  const std::string valid = encode_png(9, 9, noise(9, 9), std::vector<PngText>{{"k", "value"}});
  const auto decode = [](const std::string& bytes) { return [bytes] { decode_png(bytes, "x.png"); }; };
  expect_error(ErrorCode::kNotFound, {"gone.png"}, [&] { read_png(folder / "gone.png"); });
  expect_error(kFile, {"x.png", "PNG"}, decode(""));
  expect_error(kFile, {"x.png", "PNG"}, decode("GIF89a, certainly not what was expected"));
  for (size_t length = 0; length < valid.size(); ++length) {
    SCOPED_TRACE(length);
    expect_error(kFile, {"x.png"}, decode(valid.substr(0, length)));
  }
  std::string damaged = valid;
  damaged[damaged.find("IDAT") + 10] ^= 1;
  expect_error(kFile, {"x.png"}, decode(damaged));
}

TEST(Png, DamagedBytesNeverCrash) {
  const std::string valid = encode_png(9, 9, noise(9, 9), std::vector<PngText>{{"k", "\u00e9"}});
  std::mt19937 random(3);
  for (int round = 0; round < 1000; ++round) {
    std::string bytes = valid;
    for (int i = 0; i < 2; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    try {
      const PngImage image = decode_png(bytes, "x.png");
      EXPECT_EQ(image.pixels.size(), static_cast<size_t>(image.width) * static_cast<size_t>(image.height) * 3);
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == ErrorCode::kInvalidFile || error.code() == ErrorCode::kUnsupported) << error.what();
    }
  }
}

/// A PNG written by hand would need checksums; these are tiny real ones, as hex.
std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

struct ColourCase {
  const char* name;
  const char* hex;
  std::vector<uint8_t> pixels;
};

TEST(Png, EveryColourTypeBecomesRgb) {
  const ColourCase cases[] = {
      {"grey",
       "89504e470d0a1a0a0000000d4948445200000002000000010800000000d14920560000000b4944415478da631068000000a3"
       "00919dc15c570000000049454e44ae426082",
       {0x10, 0x10, 0x10, 0x80, 0x80, 0x80}},
      {"grey with alpha",
       "89504e470d0a1a0a0000000d49484452000000020000000108040000005e2bb7010000000d4944415478da6310f8dfc00000"
       "04420190d175bb0a0000000049454e44ae426082",
       {0x10, 0x10, 0x10, 0x80, 0x80, 0x80}},
      {"RGBA",
       "89504e470d0a1a0a0000000d4948445200000002000000010806000000f4227f8a000000114944415478da63606462666061"
       "65fb0f00015b0115c793ee350000000049454e44ae426082",
       {1, 2, 3, 4, 5, 6}},
      {"RGB with 16 bits",
       "89504e470d0a1a0a0000000d49484452000000020000000110020000002bd0349e000000154944415478da63605cc5b48a79"
       "15cb2ad6556cab00186504120a7ff0570000000049454e44ae426082",
       {1, 2, 3, 4, 5, 6}},
      {"palette",
       "89504e470d0a1a0a0000000d4948445200000002000000010803000000c3fc8fb800000006504c5445040506010203798072"
       "7a0000000b4944415478da63606400000005000242c2449f0000000049454e44ae426082",
       {1, 2, 3, 4, 5, 6}},
      {"one bit",
       "89504e470d0a1a0a0000000d4948445200000002000000010100000000dc5942270000000a4944415478da63680000008200"
       "81da45083b0000000049454e44ae426082",
       {255, 255, 255, 0, 0, 0}},
  };
  for (const ColourCase& colour : cases) {
    const PngImage image = decode_png(from_hex(colour.hex), colour.name);
    EXPECT_EQ(image.width, 2) << colour.name;
    EXPECT_EQ(image.pixels, colour.pixels) << colour.name;
  }
}

TEST(Png, Latin1TextBecomesUtf8) {
  const PngImage image = decode_png(
      from_hex("89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b5500000006744558746b00636166e9fe0d87"
               "090000000a4944415478da6360000000020001e527defc0000000049454e44ae426082"),
      "latin1");
  ASSERT_EQ(image.texts.size(), 1u);
  EXPECT_EQ(image.texts[0].value, "caf\u00e9");
}

TEST(Png, TooLargeIsUnsupported) {
  // 20000 x 1 pixels.
  const std::string bytes = from_hex(
      "89504e470d0a1a0a0000000d4948445200004e200000000108000000001edfc1520000002a4944415478daedc13101000000"
      "c2a0f54f6d0d0fa000000000000000000000000000000000000000b8304e21000193e25a910000000049454e44ae426082");
  expect_error(ErrorCode::kUnsupported, {"x.png"}, [&] { decode_png(bytes, "x.png"); });
}

}  // namespace
}  // namespace chipmunk
