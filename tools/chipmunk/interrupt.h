#pragma once

/// Ctrl-C: the first SIGINT or SIGTERM asks the program to stop at the next step, the second one ends it at once.
namespace chipmunk::cli {

void install_interrupt_handler();
bool interrupted();

}  // namespace chipmunk::cli
