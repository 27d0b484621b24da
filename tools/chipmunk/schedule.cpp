#include "sparse/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "chipmunk/error.h"
#include "commands.h"
#include "console.h"
#include "io/config.h"
#include "json_output.h"
#include "models/autoencoder_kl.h"
#include "models/flux_transformer.h"
#include "pipeline/components.h"
#include "pipeline/flow_match.h"
#include "sparse/work_estimate.h"
#include "sparsity_command.h"
#include "text/tokenizer_files.h"

namespace chipmunk::cli {
namespace {

constexpr int kMaxSide = 16384;
constexpr int kMaxSteps = 1000;
constexpr int64_t kMaxTextTokens = 512;

/// The smallest amount by which a picture grows: the transformer reads 2x2 patches of latents.
int64_t pixels_per_token(const AutoencoderConfig& vae) { return 2 * vae.spatial_factor(); }

int checked_side(const char* name, int side, const AutoencoderConfig& vae) {
  const int64_t multiple = pixels_per_token(vae);
  const int64_t pixels = side == 0 ? vae.sample_size : side;
  if (pixels < multiple || pixels > kMaxSide || pixels % multiple != 0) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{}: expected a multiple of {} from {} to {}, found {}", name,
                                                         multiple, multiple, kMaxSide, pixels));
  }
  return static_cast<int>(pixels);
}

std::string format_text(const ScheduleReport& report) {
  std::string text = fmt::format("{}, {}x{}, {} image tokens, {} steps\n", report.model, report.width, report.height,
                                 report.image_tokens, report.steps.size());
  const bool sparse = !report.sparsity.empty();
  if (sparse) {
    text += fmt::format("{}: {:.1f} % of the dense multiply-adds of attention and MLP, with {} text tokens\n",
                        report.sparsity, 100.0 * share_of_dense_work(report.estimates), report.text_tokens);
  }
  text += fmt::format("{:>5} {:>9} {:>10} {:>9}  {:<9} {:<6}", "step", "sigma", "sigma_next", "timestep", "attention",
                      "mlp");
  if (sparse) text += fmt::format(" {:>9} {:>6} {:>7}", "columns", "mlp", "work");
  text += "\n";
  for (const Step& step : report.steps) {
    text += fmt::format("{:>5} {:>9.6f} {:>10.6f} {:>9.3f}  {:<9} {:<6}", step.index + 1, step.sigma, step.sigma_next,
                        static_cast<double>(step.sigma) * static_cast<double>(report.config.num_train_timesteps),
                        to_string(step.attention), to_string(step.mlp));
    if (sparse) {
      const StepEstimate& estimate = report.estimates.at(static_cast<size_t>(step.index));
      text += fmt::format(" {:>7.1f} % {:>4.0f} % {:>5.1f} %", 100.0 * estimate.attention_kept,
                          100.0 * estimate.mlp_kept, 100.0 * share_of_dense_work({&estimate, 1}));
      if (step.may_skip) text += "  may be skipped";
    }
    text += "\n";
  }
  return text;
}

/// The sizes of a FLUX model for pictures of so many tokens.
TransformerShape transformer_shape(const FluxConfig& config, int64_t image_tokens, int64_t text_tokens) {
  TransformerShape shape;
  shape.num_layers = static_cast<int>(config.num_layers + config.num_single_layers);
  shape.tokens = text_tokens + image_tokens;
  shape.text_tokens = text_tokens;
  shape.num_heads = config.num_attention_heads;
  shape.head_dim = config.attention_head_dim;
  shape.channels = config.inner_dim();
  shape.mlp_features = config.mlp_dim();
  shape.text_mlp_layers = static_cast<int>(config.num_layers);
  return shape;
}

/// Static columns of each query group of an image model: all in groups of text queries; elsewhere text and the 1-D
/// window, whose overlap is neglected.
std::vector<int64_t> static_counts(const SparsityConfig::Attn& attn, const TransformerShape& shape) {
  const int64_t window = static_cast<int64_t>(attn.local_1d_window * static_cast<double>(shape.tokens));
  std::vector<int64_t> counts;
  for (int64_t begin = 0; begin < shape.tokens; begin += shape.group_size) {
    counts.push_back(begin < shape.text_tokens ? shape.tokens : std::min(shape.tokens, shape.text_tokens + window));
  }
  return counts;
}

/// Replaces the dense steps by those of the sparse method, with their estimates.
void plan_sparse(const SparsityConfig& sparsity, const FluxConfig& model, const std::vector<float>& sigmas,
                 ScheduleReport* report) {
  const TransformerShape shape = transformer_shape(model, report->image_tokens, report->text_tokens);
  const DenoisingSchedule schedule = DenoisingSchedule::sparse(sigmas, sparsity, shape.num_layers);
  for (const std::string& notice : schedule.notices()) print_notice(notice);
  report->steps = schedule.steps();
  report->estimates = estimate_work(schedule, sparsity, shape, static_counts(sparsity.attn, shape));
}

}  // namespace

int run_schedule(const ScheduleOptions& options) {
  ScheduleReport report;
  report.sparsity = options.sparsity;
  std::vector<std::string> notices;
  const SparsityConfig sparsity =
      options.sparsity.empty() ? SparsityConfig::dense() : load_sparsity(options.sparsity, &notices);
  FluxConfig transformer;
  report.text_tokens = kMaxTextTokens;
  AutoencoderConfig vae;  // as the transformer, FLUX.1's where no model is named
  const JsonConfig no_overrides = JsonConfig::parse("{}", "no overrides");
  if (options.model.empty()) {
    report.model = "FLUX.1-dev";
    report.config = load_scheduler({}, true, no_overrides);
  } else {
    report.model = options.model.string();
    report.config = load_scheduler(options.model / "scheduler", true, no_overrides);
    vae = AutoencoderConfig::from_json(JsonConfig::load(options.model / "vae" / "config.json"));
    if (!options.sparsity.empty()) {
      transformer = FluxConfig::from_json(JsonConfig::load(options.model / "transformer" / "config.json"));
      report.text_tokens = std::min(
          kMaxTextTokens,
          text::read_tokenizer_config(options.model / "tokenizer_2").model_max_length.value_or(kMaxTextTokens));
    }
  }
  report.width = checked_side("width", options.width, vae);
  report.height = checked_side("height", options.height, vae);
  if (options.steps < 1 || options.steps > kMaxSteps) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("steps: expected 1 to {}, found {}", kMaxSteps, options.steps));
  }
  report.image_tokens = (report.width / pixels_per_token(vae)) * (report.height / pixels_per_token(vae));
  const std::vector<float> sigmas = flow_match_sigmas(report.config, options.steps, report.image_tokens);
  if (options.sparsity.empty()) {
    report.steps = DenoisingSchedule::dense(sigmas).steps();
  } else {
    for (const std::string& notice : notices) print_notice(notice);
    plan_sparse(sparsity, transformer, sigmas, &report);
  }
  print_result(options.json ? to_json(report) : format_text(report));
  return kExitOk;
}

}  // namespace chipmunk::cli
