#pragma once

#include <string>

namespace chipmunk::cli {

/// The widest vector instructions of this CPU, as far as they matter to the engine.
std::string cpu_instruction_set();

}  // namespace chipmunk::cli
