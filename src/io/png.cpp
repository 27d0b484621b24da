#include "io/png.h"

#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstring>
#include <utility>

#include "chipmunk/error.h"
#include "io/atomic_file.h"

// libpng reports errors by longjmp, which must not skip a destructor. So the functions between setjmp and libpng hold
// nothing but pointers and numbers; everything that owns memory lives in their callers, reached through a session.

namespace chipmunk {
namespace {

constexpr int kMaxSide = 16384;
constexpr size_t kMaxFileBytes = size_t{1} << 30;
constexpr size_t kMaxChunkBytes = 8u << 20;  // a text that unpacks to more is an attack, not a prompt
constexpr size_t kChannels = 3;
constexpr int kCompressionLevel = 6;

/// What the libpng callbacks of one image share.
struct Session {
  char message[256] = "";
  std::string* output = nullptr;
  std::string_view input;
  bool out_of_memory = false;
  bool too_large = false;
};

void on_error(png_structp png, png_const_charp message) {
  auto* session = static_cast<Session*>(png_get_error_ptr(png));
  std::strncpy(session->message, message, sizeof(session->message) - 1);
  png_longjmp(png, 1);
}

/// Warnings are for writers of PNG tools, but for one: the error that follows it does not give the cause.
void on_warning(png_structp png, png_const_charp message) {
  auto* session = static_cast<Session*>(png_get_error_ptr(png));
  if (std::strstr(message, "exceeds user limit") != nullptr) session->too_large = true;
}

void append_output(png_structp png, png_bytep data, size_t bytes) {
  auto* session = static_cast<Session*>(png_get_io_ptr(png));
  try {
    session->output->append(reinterpret_cast<const char*>(data), bytes);
  } catch (...) {  // an exception must not pass through C code
    session->out_of_memory = true;
  }
  if (session->out_of_memory) png_error(png, "no memory left");
}

void flush_output(png_structp) {}

void consume_input(png_structp png, png_bytep data, size_t bytes) {
  auto* session = static_cast<Session*>(png_get_io_ptr(png));
  if (bytes > session->input.size()) png_error(png, "the file is truncated");
  std::memcpy(data, session->input.data(), bytes);
  session->input.remove_prefix(bytes);
}

/// Owns the two structs of a libpng writer or reader.
class PngHandle {
 public:
  enum class Mode { kRead, kWrite };

  PngHandle(Mode mode, Session* session) : mode_(mode) {
    png_ = mode == Mode::kWrite ? png_create_write_struct(PNG_LIBPNG_VER_STRING, session, on_error, on_warning)
                                : png_create_read_struct(PNG_LIBPNG_VER_STRING, session, on_error, on_warning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
    if (info_ == nullptr) {
      destroy();
      throw Error(ErrorCode::kOutOfMemory, "no memory for a PNG");
    }
  }
  ~PngHandle() { destroy(); }
  PngHandle(const PngHandle&) = delete;
  PngHandle& operator=(const PngHandle&) = delete;

  png_structp png() const { return png_; }
  png_infop info() const { return info_; }

 private:
  void destroy() {
    if (png_ == nullptr) return;
    if (mode_ == Mode::kWrite) {
      png_destroy_write_struct(&png_, &info_);
    } else {
      png_destroy_read_struct(&png_, &info_, nullptr);
    }
  }

  Mode mode_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
};

/// Length of the UTF-8 sequence at the front of text, or 0 if it is not valid (overlong forms, surrogates, beyond
/// U+10FFFF).
size_t utf8_length(std::string_view text) {
  const auto byte = [text](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const uint8_t second = byte(1);
  const bool overlong = (lead == 0xe0 && second < 0xa0) || (lead == 0xf0 && second < 0x90);
  const bool beyond = (lead == 0xed && second > 0x9f) || (lead == 0xf4 && second > 0x8f);
  return overlong || beyond ? 0 : length;
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

void check_text(const PngText& text) {
  const bool printable = std::all_of(text.key.begin(), text.key.end(), [](char c) { return c >= ' ' && c <= '~'; });
  if (!printable || text.key.empty() || text.key.size() > 79 || text.key.front() == ' ' || text.key.back() == ' ') {
    throw Error(ErrorCode::kInvalidArgument,
                "PNG text key \"" + text.key + "\": expected 1 to 79 printable ASCII characters");
  }
  if (!is_utf8(text.value) || text.value.find('\0') != text.value.npos) {
    throw Error(ErrorCode::kInvalidText, "PNG text \"" + text.key + "\": expected UTF-8 without NUL");
  }
}

std::vector<png_text> to_png_texts(std::span<const PngText> texts) {
  std::vector<png_text> result;
  for (const PngText& text : texts) {
    check_text(text);
    const bool ascii = std::all_of(text.value.begin(), text.value.end(), [](char c) { return (c & 0x80) == 0; });
    png_text entry{};
    entry.compression = ascii ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
    // libpng takes pointers to non-const and does not write through them.
    entry.key = const_cast<char*>(text.key.c_str());
    entry.text = const_cast<char*>(text.value.c_str());
    (ascii ? entry.text_length : entry.itxt_length) = text.value.size();
    result.push_back(entry);
  }
  return result;
}

struct WriteJob {
  png_structp png;
  png_infop info;
  Session* session;
  png_uint_32 width;
  png_uint_32 height;
  const uint8_t* pixels;
  const png_text* texts;
  int num_texts;
};

/// False after an error. Holds nothing with a destructor, see above.
bool run_write(const WriteJob* job) {
  if (setjmp(png_jmpbuf(job->png)) != 0) return false;
  png_set_user_limits(job->png, kMaxSide, kMaxSide);
  png_set_write_fn(job->png, job->session, append_output, flush_output);
  png_set_IHDR(job->png, job->info, job->width, job->height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_set_compression_level(job->png, kCompressionLevel);
  if (job->num_texts > 0) png_set_text(job->png, job->info, job->texts, job->num_texts);
  png_write_info(job->png, job->info);
  for (png_uint_32 row = 0; row < job->height; ++row) {
    png_write_row(job->png, job->pixels + static_cast<size_t>(row) * job->width * kChannels);
  }
  png_write_end(job->png, nullptr);
  return true;
}

/// Reads up to the pixels and sets the conversion to 8-bit RGB.
bool run_read_header(png_structp png, png_infop info, Session* session) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  png_set_user_limits(png, kMaxSide, kMaxSide);
  png_set_chunk_malloc_max(png, kMaxChunkBytes);
  png_set_read_fn(png, session, consume_input);
  png_read_info(png, info);
  png_set_expand(png);
  png_set_strip_16(png);
  png_set_gray_to_rgb(png);
  png_set_strip_alpha(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  if (png_get_rowbytes(png, info) != png_get_image_width(png, info) * kChannels) png_error(png, "not an RGB image");
  return true;
}

bool run_read_pixels(png_structp png, png_infop info, uint8_t** rows) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  png_read_image(png, rows);
  png_read_end(png, info);
  return true;
}

/// tEXt is Latin-1 by the standard and UTF-8 in many files: what is valid UTF-8 stays.
std::string to_utf8(std::string_view text) {
  if (is_utf8(text)) return std::string(text);
  std::string result;
  for (char c : text) {
    const uint8_t byte = static_cast<uint8_t>(c);
    if (byte >= 0x80) result += static_cast<char>(0xc0 | (byte >> 6));
    result += byte >= 0x80 ? static_cast<char>(0x80 | (byte & 0x3f)) : c;
  }
  return result;
}

std::vector<PngText> read_texts(const PngHandle& handle) {
  png_textp entries = nullptr;
  int count = 0;
  png_get_text(handle.png(), handle.info(), &entries, &count);
  std::vector<PngText> result;
  for (int i = 0; i < count; ++i) {
    const png_text& entry = entries[i];
    const size_t length = entry.compression > 0 ? entry.itxt_length : entry.text_length;
    const std::string_view value = entry.text == nullptr ? std::string_view() : std::string_view(entry.text, length);
    result.push_back({to_utf8(entry.key), to_utf8(value)});
  }
  return result;
}

[[noreturn]] void throw_malformed(const Session& session, const std::string& where) {
  if (session.too_large) {
    throw Error(ErrorCode::kUnsupported, "the PNG exceeds " + std::to_string(kMaxSide) + " pixels a side", where);
  }
  throw Error(ErrorCode::kInvalidFile, std::string("not a readable PNG: ") + session.message, where);
}

}  // namespace

std::string encode_png(int width, int height, std::span<const uint8_t> pixels, std::span<const PngText> texts) {
  if (width < 1 || height < 1 || width > kMaxSide || height > kMaxSide) {
    throw Error(ErrorCode::kInvalidArgument, "PNG size: expected 1 to " + std::to_string(kMaxSide) +
                                                 " pixels a side, found " + std::to_string(width) + "x" +
                                                 std::to_string(height));
  }
  const size_t expected = static_cast<size_t>(width) * static_cast<size_t>(height) * kChannels;
  if (pixels.size() != expected) {
    throw Error(ErrorCode::kInvalidArgument,
                "PNG pixels: expected " + std::to_string(expected) + " bytes, found " + std::to_string(pixels.size()));
  }
  const std::vector<png_text> entries = to_png_texts(texts);
  std::string output;
  Session session;
  session.output = &output;
  const PngHandle handle(PngHandle::Mode::kWrite, &session);
  const WriteJob job{handle.png(),
                     handle.info(),
                     &session,
                     static_cast<png_uint_32>(width),
                     static_cast<png_uint_32>(height),
                     pixels.data(),
                     entries.data(),
                     static_cast<int>(entries.size())};
  if (!run_write(&job)) {
    throw Error(session.out_of_memory ? ErrorCode::kOutOfMemory : ErrorCode::kInternal,
                std::string("writing a PNG: ") + session.message);
  }
  return output;
}

void write_png(const std::filesystem::path& path, int width, int height, std::span<const uint8_t> pixels,
               std::span<const PngText> texts) {
  write_file(path, encode_png(width, height, pixels, texts));
}

PngImage decode_png(std::string_view bytes, const std::string& where) {
  Session session;
  session.input = bytes;
  const PngHandle handle(PngHandle::Mode::kRead, &session);
  if (!run_read_header(handle.png(), handle.info(), &session)) throw_malformed(session, where);

  const size_t width = png_get_image_width(handle.png(), handle.info());
  const size_t height = png_get_image_height(handle.png(), handle.info());
  PngImage image{static_cast<int>(width), static_cast<int>(height), {}, {}};
  image.pixels.resize(width * height * kChannels);
  std::vector<uint8_t*> rows(height);
  for (size_t row = 0; row < height; ++row) rows[row] = image.pixels.data() + row * width * kChannels;
  if (!run_read_pixels(handle.png(), handle.info(), rows.data())) throw_malformed(session, where);
  image.texts = read_texts(handle);
  return image;
}

PngImage read_png(const std::filesystem::path& path) {
  return decode_png(read_file(path, kMaxFileBytes), path.string());
}

}  // namespace chipmunk
