#pragma once

namespace chipmunk::cli {

/// Makes OpenMP's threads sleep soon after they run out of work, by starting the program again with GOMP_SPINCOUNT set;
/// returns where that is done already, the user chose a policy, or it cannot be done.
///
/// By default they spin for milliseconds, and where another program wants a core too, the thread that everyone waits
/// for is the one that is not running: a small model became 30 times slower on two shared cores. The setting is read
/// when the library is loaded, which is before main().
void limit_openmp_spinning(char** argv);

}  // namespace chipmunk::cli
