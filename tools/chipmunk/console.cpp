#include "console.h"

#include <cerrno>
#include <cstdio>
#include <string>
#include <system_error>

#include "chipmunk/error.h"

namespace chipmunk::cli {
namespace {

/// In one call, so that lines of several programs on one terminal do not mix.
void print_line(std::string_view kind, std::string_view message) {
  std::string line = "chipmunk: " + std::string(kind) + std::string(message);
  while (line.ends_with('\n')) line.pop_back();
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace

void print_error(std::string_view message) { print_line("error: ", message); }

void print_notice(std::string_view message) { print_line("notice: ", message); }

void print_result(std::string_view text) {
  std::string lines(text);
  if (!lines.ends_with('\n')) lines += '\n';
  errno = 0;
  if (std::fwrite(lines.data(), 1, lines.size(), stdout) != lines.size() || std::fflush(stdout) != 0) {
    throw Error(ErrorCode::kIo, "cannot write: " + std::generic_category().message(errno), "standard output");
  }
}

}  // namespace chipmunk::cli
