#include "prompts.h"

#include <algorithm>
#include <string_view>

#include "chipmunk/error.h"
#include "io/atomic_file.h"

namespace chipmunk::cli {
namespace {

// Far more prompts than anyone waits for.
constexpr size_t kMaxFileBytes = 64u << 20;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::string_view kBlanks = " \t\r\v\f";

}  // namespace

std::vector<Prompt> read_prompts(const std::filesystem::path& path) {
  const std::string content = read_file(path, kMaxFileBytes);
  std::string_view rest = content;
  if (rest.starts_with(kByteOrderMark)) rest.remove_prefix(kByteOrderMark.size());
  std::vector<Prompt> prompts;
  for (size_t number = 1; !rest.empty(); ++number) {
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.ends_with('\r')) line.remove_suffix(1);
    const size_t begin = line.find_first_not_of(kBlanks);
    if (begin == line.npos || line.front() == '#') continue;
    const std::string where = path.string() + ", line " + std::to_string(number);
    // It could not be stored with the picture.
    if (line.find('\0') != line.npos) throw Error(ErrorCode::kInvalidText, "the prompt contains a NUL", where);
    prompts.push_back({std::string(line), where});
  }
  if (prompts.empty()) {
    throw Error(ErrorCode::kInvalidFile, "expected at least one line with a prompt, found none", path.string());
  }
  return prompts;
}

}  // namespace chipmunk::cli
