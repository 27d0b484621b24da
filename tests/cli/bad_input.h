#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "program.h"
#include "workbench.h"

namespace chipmunk::testing {

/// One thing wrong, and how the program must say so.
struct BadInput {
  std::string name;
  /// With {model}, {out}, {tmp}, {data}.
  std::vector<std::string> arguments;
  int exit_code;
  /// All of them must be part of stderr: the culprit, what was expected, what was found.
  std::vector<std::string> message;
  std::function<void(Workbench&)> prepare = nullptr;
  ProgramOptions options = {};
};

inline std::ostream& operator<<(std::ostream& stream, const BadInput& bad) { return stream << bad.name; }

/// An option with its value, in place of a good command's or in addition to it.
struct Change {
  std::string option, value;
};

/// The arguments of a command that works (a 32 x 32 picture in one step), with changes.
std::vector<std::string> generate_with(const std::vector<Change>& changes, const std::vector<std::string>& more = {});

std::vector<BadInput> bad_usage();
std::vector<BadInput> bad_values();
std::vector<BadInput> bad_places();
std::vector<BadInput> bad_text();
std::vector<BadInput> bad_model_folders();
std::vector<BadInput> bad_configs();
std::vector<BadInput> bad_weights();
std::vector<BadInput> bad_tokenizers();
std::vector<BadInput> bad_sparsity();
std::vector<BadInput> bad_comparisons();

}  // namespace chipmunk::testing
