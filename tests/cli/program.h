#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace chipmunk::testing {

/// How a program ended and what it wrote.
struct ProgramResult {
  int exit_code = -1;  ///< -1 if a signal ended it
  int signal = 0;
  std::string out, err;
  bool timed_out = false;
};

struct TimedSignal {
  std::string after;
  int signal;
};

struct ProgramOptions {
  int timeout_seconds = 120;
  /// Sent one after the other, each as soon as stderr contains its text.
  std::vector<TimedSignal> signals;
  /// Standard error is a terminal.
  bool terminal = false;
  /// Largest file in bytes that it may write (RLIMIT_FSIZE): a full disk.
  std::optional<size_t> file_size_limit;
  /// Standard output goes to this file in place of ProgramResult::out.
  std::string stdout_path;
  std::string working_folder;
};

/// Runs the chipmunk of this build with these arguments.
ProgramResult run_chipmunk(const std::vector<std::string>& arguments, const ProgramOptions& options = {});

}  // namespace chipmunk::testing
