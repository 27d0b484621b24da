#pragma once

namespace chipmunk::cli {

/// `inspect --device`: what the CPU and the GPUs are, as a text or JSON. Returns the exit code.
int run_inspect_device(bool json);

}  // namespace chipmunk::cli
