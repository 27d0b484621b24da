#include <fmt/format.h>

#include "flux_bench.h"

namespace chipmunk::cli {
namespace {

/// Of two linears in one call: "3840+512".
std::string rows_name(const LinearShape& shape) {
  return shape.second_rows == 0 ? fmt::format("{}", shape.rows) : fmt::format("{}+{}", shape.rows, shape.second_rows);
}

/// What follows the matmul, and "fp8" in front where its operands are that.
std::string linear_name(const LinearShape& shape) {
  std::string epilogue = epilogue_name(shape);
  if (!shape.fp8) return epilogue;
  return epilogue.empty() ? "fp8" : "fp8 " + epilogue;
}

constexpr double kGibibyte = 1024.0 * 1024.0 * 1024.0;

/// An amount per second in multiples of `unit`, or "-" where there is none.
std::string rate(double amount, double ms, double unit) {
  return amount > 0.0 ? fmt::format("{:.4g}", amount / ms * 1e3 / unit) : "-";
}

std::string fraction(double part, double whole) { return part > 0.0 ? fmt::format("{:.2f}", part / whole) : "-"; }

std::string work_columns(const WorkResult& work, const Ceilings& ceilings) {
  return fmt::format("{:>8} {:>8} {:>8} {:>10}", rate(work.flops, work.ms, 1e12), rate(work.bytes, work.ms, 1e9),
                     fraction(work.flops, ceilings.matmul_flops_per_s * work.ms * 1e-3),
                     fraction(work.fastest_ms, work.ms));
}

std::string alone_columns(const LinearResult& linear) {
  if (!linear.alone) return "";
  const auto& [ours_ms, cublas_ms] = *linear.alone;
  return fmt::format(" {:>10.4f} {:>9.4f} {:>5.2f}", ours_ms, cublas_ms, cublas_ms / ours_ms);
}

std::string format_breakdown(const StageResult& stage) {
  std::string text =
      fmt::format("\n{}: ceilings in the same rounds: matmul {:.4g} TFLOP/s, copy {:.4g} GB/s\n", stage.name,
                  stage.ceilings.matmul_flops_per_s * 1e-12, stage.ceilings.copy_bytes_per_s * 1e-9);
  const char* columns = "TFLOP/s     GB/s of clock of ceiling";
  text += fmt::format("{:<36} {:>5} {:>10} {:>7}  {}\n", "kind", "ops", "ms", "share", columns);
  for (const KindResult& kind : stage.kinds) {
    text += fmt::format("{:<36} {:>5} {:>10.3f} {:>6.1f}% {}\n", kind.kind, kind.work.ops, kind.work.ms,
                        100.0 * kind.work.ms / stage.median_ms, work_columns(kind.work, stage.ceilings));
  }
  text += fmt::format("{:<36} {:>5} {:>10.3f} {:>6.1f}%\n", "between ops", "", stage.rest_ms,
                      100.0 * stage.rest_ms / stage.median_ms);
  if (stage.busy_share) text += fmt::format("the GPU is busy {:.1f}% of the time\n", 100.0 * *stage.busy_share);
  if (stage.linears.empty()) return text;
  text += fmt::format("{:>9} {:>6} {:>6} {:<18} {:>5} {:>10} {:>7}  {}{}\n", "M", "N", "K", "epilogue", "ops",
                      "ms each", "share", columns, stage.linears[0].alone ? "   ms alone  cuBLASLt of it" : "");
  double ours_ms = 0.0, cublas_ms = 0.0;
  for (const LinearResult& linear : stage.linears) {
    text += fmt::format("{:>9} {:>6} {:>6} {:<18} {:>5} {:>10.4f} {:>6.1f}% {}{}\n", rows_name(linear.shape),
                        linear.shape.out_features, linear.shape.in_features, linear_name(linear.shape), linear.work.ops,
                        linear.work.ms / linear.work.ops, 100.0 * linear.work.ms / stage.median_ms,
                        work_columns(linear.work, stage.ceilings), alone_columns(linear));
    if (!linear.alone) continue;
    ours_ms += linear.work.ops * linear.alone->ours_ms;
    cublas_ms += linear.work.ops * linear.alone->cublas_ms;
  }
  if (ours_ms > 0.0) {
    text += fmt::format("all linears, each alone: {:.3f} ms, cuBLASLt's fastest algorithms {:.3f} ms, {:.3f} of it\n",
                        ours_ms, cublas_ms, cublas_ms / ours_ms);
  }
  return text;
}

std::string format_generations(const std::vector<GenerationResult>& generations) {
  if (generations.empty()) return "";
  std::string text = fmt::format("\ndenoising, {} steps\n{:<20} {:>9} {:>9} {:>9} {:>8} {:>9}\n", generations[0].steps,
                                 "sparsity", "median s", "min", "max", "x dense", "peak GiB");
  for (const GenerationResult& generation : generations) {
    text +=
        fmt::format("{:<20} {:>9.3f} {:>9.3f} {:>9.3f} {:>8.2f} {:>9.2f}\n", generation.sparsity, generation.median_s,
                    generation.min_s, generation.max_s, generations[0].median_s / generation.median_s,
                    static_cast<double>(generation.peak_bytes) / kGibibyte);
  }
  text += fmt::format("{:<20} {:<10} {:<14} {:>6} {:>10}\n", "sparsity", "attention", "MLP", "steps", "ms a step");
  for (const GenerationResult& generation : generations) {
    for (const StepKindResult& kind : generation.kinds) {
      text += fmt::format("{:<20} {:<10} {:<14} {:>6} {:>10.3f}\n", generation.sparsity, kind.attention, kind.mlp,
                          kind.steps, kind.ms);
    }
  }
  return text;
}

}  // namespace

std::string format_flux_table(const FluxBenchResult& result) {
  const FluxBenchOptions& options = result.options;
  std::string text = fmt::format(
      "{} x {} pixels, {} text tokens, hidden {}, {} double + {} single blocks, on {}; {:.2f} GiB of weights\n"
      "{:<36} {:>10} {:>10} {:>10} {:>9}\n",
      options.width, options.height, options.text_tokens, options.transformer.inner_dim(),
      options.transformer.num_layers, options.transformer.num_single_layers, result.device,
      static_cast<double>(result.weight_bytes) / kGibibyte, "stage", "median ms", "min", "max", "peak GiB");
  if (options.with_fp8) {
    text.insert(0, fmt::format("the transformer's weights: {:.2f} GiB, with its blocks' linears in fp8 {:.2f} GiB\n",
                               static_cast<double>(result.transformer_bytes) / kGibibyte,
                               static_cast<double>(result.fp8_transformer_bytes) / kGibibyte));
  }
  for (const StageResult& stage : result.stages) {
    text += fmt::format("{:<36} {:>10.3f} {:>10.3f} {:>10.3f} {:>9.2f}\n", stage.name, stage.median_ms, stage.min_ms,
                        stage.max_ms, static_cast<double>(stage.peak_bytes) / kGibibyte);
  }
  for (const StageResult& stage : result.stages) text += format_breakdown(stage);
  return text + format_generations(result.generations);
}

}  // namespace chipmunk::cli
