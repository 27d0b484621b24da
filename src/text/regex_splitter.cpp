#include "text/regex_splitter.h"

#include <fmt/format.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "chipmunk/error.h"

namespace chipmunk::text {
namespace {

std::string pcre2_message(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct RegexSplitter::Code {
  struct Free {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  };
  std::unique_ptr<pcre2_code, Free> compiled;
};

RegexSplitter::RegexSplitter(const std::string& pattern) : code_(std::make_unique<Code>()) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_->compiled.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                      PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr));
  if (!code_->compiled) {
    throw Error(ErrorCode::kInvalidConfig,
                fmt::format("invalid expression \"{}\" at offset {}: {}", pattern, offset, pcre2_message(error)));
  }
  // Without just-in-time code the same matches come from the interpreter, so a refusal is no error.
  pcre2_jit_compile(code_->compiled.get(), PCRE2_JIT_COMPLETE);
}

RegexSplitter::~RegexSplitter() = default;
RegexSplitter::RegexSplitter(RegexSplitter&&) noexcept = default;
RegexSplitter& RegexSplitter::operator=(RegexSplitter&&) noexcept = default;

std::vector<std::string_view> RegexSplitter::matches(std::string_view text) const {
  struct FreeMatchData {
    void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  };
  const std::unique_ptr<pcre2_match_data, FreeMatchData> data(
      pcre2_match_data_create_from_pattern(code_->compiled.get(), nullptr));
  if (!data) throw Error(ErrorCode::kOutOfMemory, "no memory for a regular expression match");
  std::vector<std::string_view> found;
  size_t position = 0;
  while (position < text.size()) {
    // The text is checked before: PCRE2 would check all of it again at every match, which is quadratic.
    const int result = pcre2_match(code_->compiled.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                   position, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, data.get(), nullptr);
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) throw Error(ErrorCode::kInternal, pcre2_message(result), "regular expression match");
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data.get());
    found.push_back(text.substr(bounds[0], bounds[1] - bounds[0]));
    position = bounds[1];
  }
  return found;
}

}  // namespace chipmunk::text
