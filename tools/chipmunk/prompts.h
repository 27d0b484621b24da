#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace chipmunk::cli {

struct Prompt {
  std::string text;
  std::string where;  ///< "prompts.txt, line 3" for errors; empty for a prompt from the command line
};

/// The prompts of a file: one a line, UTF-8, with or without a byte order mark and carriage returns; blank lines and
/// lines that start with # are skipped. Throws kInvalidFile if none is left, kInvalidText for a NUL, and what
/// read_file() throws.
std::vector<Prompt> read_prompts(const std::filesystem::path& path);

}  // namespace chipmunk::cli
