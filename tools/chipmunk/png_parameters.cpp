#include "png_parameters.h"

#include <fmt/format.h>

namespace chipmunk::cli {
namespace {

/// Readers split the line at commas and colons, except inside of quotes.
std::string quote_value(const std::string& value) {
  if (value.find_first_of(",:\"\n") == value.npos) return value;
  std::string quoted = "\"";
  for (const char letter : value) {
    if (letter == '"' || letter == '\\') quoted += '\\';
    quoted += letter == '\n' ? ' ' : letter;
  }
  return quoted + '"';
}

}  // namespace

std::string format_parameters(const PictureSettings& settings) {
  std::string text = settings.prompt + "\n";
  if (!settings.negative_prompt.empty()) text += "Negative prompt: " + settings.negative_prompt + "\n";
  text += fmt::format("Steps: {}, Sampler: Euler, CFG scale: {}", settings.steps, settings.true_cfg_scale);
  if (settings.has_guidance) text += fmt::format(", Guidance: {}", settings.guidance);
  if (!settings.sparsity.empty()) text += ", Sparsity: " + quote_value(settings.sparsity);
  if (settings.fp8) text += ", Linears: fp8";
  text += fmt::format(", Seed: {}, Size: {}x{}, Model: {}, Version: chipmunk {}", settings.seed, settings.width,
                      settings.height, quote_value(settings.model), CHIPMUNK_VERSION);
  return text;
}

}  // namespace chipmunk::cli
