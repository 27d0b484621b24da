#pragma once

#include "backend.h"

namespace chipmunk::test {

/// The CPU with all cores.
inline Context cpu_context() { return make_cpu_context({0, 0}); }

}  // namespace chipmunk::test
