#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <string_view>

#include "chipmunk/error.h"
#include "command_line.h"
#include "commands.h"
#include "console.h"
#include "openmp_settings.h"

namespace {

namespace cli = chipmunk::cli;

/// The commands that run a model.
bool computes(std::string_view command) {
  return command == "generate" || command == "evaluate" || command == "compare";
}

int exit_code(const chipmunk::Error& error) {
  if (error.code() == chipmunk::ErrorCode::kCancelled) return cli::kExitInterrupted;
  return error.code() == chipmunk::ErrorCode::kInvalidArgument ? cli::kExitBadUse : cli::kExitError;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && computes(argv[1])) cli::limit_openmp_spinning(argv);
  // Writing past a file size limit is reported like any other failed write, not by ending the program.
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    const cli::ParsedCommand command = cli::parse_command_line(argc, argv);
    return command.run ? command.run() : command.exit_code;
  } catch (const chipmunk::Error& error) {
    if (error.code() == chipmunk::ErrorCode::kCancelled) {
      std::fputs("chipmunk: stopped\n", stderr);
    } else {
      cli::print_error(error.what());
    }
    return exit_code(error);
  } catch (const std::bad_alloc&) {
    cli::print_error("out of memory");
  } catch (const std::exception& error) {
    cli::print_error(error.what());
  }
  return cli::kExitError;
}
