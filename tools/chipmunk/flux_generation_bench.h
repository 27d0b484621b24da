#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "core/context.h"
#include "flux_bench.h"
#include "flux_workload.h"

namespace chipmunk::cli {

/// Denoises noise with `model` densely and with each of options.sparsities, all of them in turn, options.rounds times
/// after an untimed run each. Throws kInternal unless a run's latents are finite and the same bits every time.
std::vector<GenerationResult> bench_generations(const Context& context, const FluxBenchOptions& options,
                                                const FluxWorkload& workload,
                                                const std::function<void(const std::string&)>& progress);

}  // namespace chipmunk::cli
