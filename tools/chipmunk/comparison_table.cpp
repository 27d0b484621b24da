#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "comparison_report.h"

namespace chipmunk::cli {
namespace {

constexpr size_t kMinNameWidth = 12;

std::string cell(double value, int decimals, int width) {
  return std::isfinite(value) ? fmt::format("{:>{}.{}f}", value, width, decimals) : fmt::format("{:>{}}", "-", width);
}

/// A fraction in percent.
std::string percent(double value, int width) {
  return std::isfinite(value) ? fmt::format("{:>{}.1f} %", 100.0 * value, width - 2)
                              : fmt::format("{:>{}}", "-", width);
}

std::string fraction_cell(const Fraction& fraction) {
  if (fraction.total == 0) return fmt::format("{:>22}", "-");
  return fmt::format("{:>7.1f} [{:5.1f}, {:5.1f}]", 100.0 * fraction.value(), 100.0 * fraction.low(),
                     100.0 * fraction.high());
}

std::string score_line(const std::string& name, size_t width, const ScoreRow& row) {
  std::string line = fmt::format("{:<{}}", name, width);
  for (const Fraction* fraction : {&row.all_correct, &row.object, &row.colour, &row.shape, &row.relation}) {
    line += fraction_cell(*fraction);
  }
  return line + "\n";
}

}  // namespace

std::string format_table(const Comparison& comparison) {
  const auto pictures = static_cast<double>(comparison.prompts.size());
  size_t width = kMinNameWidth;
  for (const Variant& variant : comparison.variants) width = std::max(width, variant.name.size() + 1);
  std::string text = fmt::format("{} picture{} of {}x{}, {} steps, on {}\n", comparison.prompts.size(),
                                 comparison.prompts.size() == 1 ? "" : "s", comparison.width, comparison.height,
                                 comparison.steps, comparison.device);
  text += fmt::format("{:<{}}{:>24}{:>17}{:>9}{:>9}{:>9}{:>28}\n", "", width, "PSNR [dB]", "SSIM", "work", "columns",
                      "features", "denoising [s a picture]");
  text += fmt::format("{:<{}}{:>8}{:>8}{:>8}{:>9}{:>8}{:>9}{:>9}{:>9}{:>9}{:>9}{:>10}\n", "variant", width, "mean",
                      "min", "std", "mean", "min", "share", "kept", "kept", "dense", "sparse", "speed-up");
  const double dense_ms = comparison.dense.denoise_ms();
  for (const Variant& variant : comparison.variants) {
    const Summary psnr = summarise_psnr(variant.run), ssim = summarise_ssim(variant.run);
    const RecordStatistics& records = variant.run.records;
    text += fmt::format("{:<{}}", variant.name, width) + cell(psnr.mean, 2, 8) + cell(psnr.min, 2, 8) +
            cell(psnr.deviation, 2, 8) + cell(ssim.mean, 4, 9) + cell(ssim.min, 4, 8) +
            percent(records.share_of_dense_work(), 9) + percent(records.attention_kept(), 9) +
            percent(records.mlp_kept(), 9) + cell(dense_ms / pictures / 1e3, 2, 9) +
            cell(variant.run.denoise_ms() / pictures / 1e3, 2, 9) + cell(dense_ms / variant.run.denoise_ms(), 2, 9) +
            "x\n";
    if (psnr.infinite > 0) {
      text += fmt::format("{:<{}}  PSNR without {} picture{} equal to the dense one{}\n", "", width, psnr.infinite,
                          psnr.infinite == 1 ? "" : "s", psnr.infinite == 1 ? "" : "s");
    }
  }
  if (comparison.suite.empty()) return text;
  text += fmt::format("\n{:<{}}{:>22}{:>22}{:>22}{:>22}{:>22}\n", "scenes [%]", width, "all correct", "object",
                      "colour", "shape", "relation");
  text += score_line("dense", width, comparison.dense.score.all);
  for (const Variant& variant : comparison.variants) text += score_line(variant.name, width, variant.run.score.all);
  return text;
}

}  // namespace chipmunk::cli
