#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/context.h"

namespace chipmunk::cli {

/// A problem size of `bench kernels`: attention of one layer, with the kept shares of its columns to measure.
struct KernelPreset {
  std::string name;
  int64_t heads, tokens, head_dim;
  std::vector<double> kept;
};

/// hunyuan, flux, wan and mid, as docs/performance.md reports them; tiny runs anywhere in a second.
const std::vector<KernelPreset>& kernel_presets();

/// One kernel at one size.
struct KernelResult {
  std::string preset, kernel;
  double kept = 1.0;  ///< share of the keys that count
  double median_ms = 0.0, min_ms = 0.0, max_ms = 0.0;
  double useful_flops = 0.0;          ///< 0 where bytes count
  double bytes = 0.0;                 ///< that must be read and written
  double clock_tflops = 0.0;          ///< of a large matmul in the same rounds
  double relative_error = 0.0;        ///< of sampled rows against float64; checked before anything is timed
  std::optional<double> times_dense;  ///< speed-up over our dense kernel, in the same rounds
};

/// Checks and times every kernel of the presets; progress hears what is being done. Throws kInternal where a result is
/// wrong.
std::vector<KernelResult> bench_kernels(const Context& context, const std::vector<KernelPreset>& presets, int rounds,
                                        const std::function<void(const std::string&)>& progress);

std::string format_kernel_table(const std::vector<KernelResult>& results);

}  // namespace chipmunk::cli
