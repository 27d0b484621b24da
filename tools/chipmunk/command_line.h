#pragma once

#include <functional>

namespace chipmunk::cli {

/// What the arguments ask for.
struct ParsedCommand {
  std::function<int()> run;  ///< the command with its options; empty if parsing was all there was to do
  int exit_code = 0;         ///< where there is nothing to run: 0 after --help, 2 after bad use
};

/// Reads the arguments. Help goes to stdout; bad use is one line on stderr.
ParsedCommand parse_command_line(int argc, char** argv);

}  // namespace chipmunk::cli
