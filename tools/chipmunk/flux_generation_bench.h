#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/context.h"
#include "flux_bench.h"
#include "flux_workload.h"

namespace chipmunk::cli {

/// A model and what its results' names end with.
using NamedWorkload = std::pair<std::string, std::shared_ptr<const FluxWorkload>>;

/// Denoises noise with each model densely and with each of options.sparsities, all of them in turn, options.rounds
/// times after an untimed run each. Throws kInternal unless a run's latents are finite and the same bits every time.
std::vector<GenerationResult> bench_generations(const Context& context, const FluxBenchOptions& options,
                                                const std::vector<NamedWorkload>& workloads,
                                                const std::function<void(const std::string&)>& progress);

}  // namespace chipmunk::cli
