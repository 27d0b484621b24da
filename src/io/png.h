#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace chipmunk {

/// The text key under which image tools look for prompt and settings.
inline constexpr const char* kPngParametersKey = "parameters";

/// A text entry of a PNG: a key of 1 to 79 printable ASCII characters and a UTF-8 value, which may have several lines.
struct PngText {
  std::string key;
  std::string value;
};

/// An 8-bit RGB image, row-major, three bytes a pixel, and the text entries stored with it.
struct PngImage {
  int width = 0;
  int height = 0;
  std::vector<uint8_t> pixels;
  std::vector<PngText> texts;
};

/// PNG bytes of an image; the same image gives the same bytes. ASCII texts become tEXt, which every tool reads; others
/// iTXt. Throws kInvalidArgument if the size is not positive, pixels is not width x height x 3 bytes or a key is not
/// as described; kInvalidText for values that are not UTF-8 or contain a NUL.
std::string encode_png(int width, int height, std::span<const uint8_t> pixels, std::span<const PngText> texts = {});

/// Encodes into a file, which appears under its name only when complete. Throws as encode_png and AtomicFile do.
void write_png(const std::filesystem::path& path, int width, int height, std::span<const uint8_t> pixels,
               std::span<const PngText> texts = {});

/// Reads a PNG of any colour type: grey and palettes become RGB, 16 bits become 8, alpha is dropped. `where` names it
/// in errors. Throws kInvalidFile if it is malformed or truncated; kUnsupported if it exceeds 16384 pixels a side.
PngImage decode_png(std::string_view bytes, const std::string& where);

/// Throws kNotFound, kIo and what decode_png throws.
PngImage read_png(const std::filesystem::path& path);

}  // namespace chipmunk
