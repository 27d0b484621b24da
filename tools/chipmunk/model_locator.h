#pragma once

#include <filesystem>

namespace chipmunk::cli {

/// The model that comes with Chipmunk, models/scenes: beside an installed program (../share/chipmunk/models), in the
/// repository that the program was built from, or in one that its build folder lies in.
/// Throws kInvalidArgument, asking for --model, if there is none.
std::filesystem::path find_default_model();

}  // namespace chipmunk::cli
