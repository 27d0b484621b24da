#include "sparse/schedule.h"

#include <fmt/format.h>

#include <string>

#include "chipmunk/error.h"
#include "commands.h"
#include "console.h"
#include "io/config.h"
#include "json_output.h"
#include "models/autoencoder_kl.h"
#include "pipeline/components.h"
#include "pipeline/flow_match.h"

namespace chipmunk::cli {
namespace {

constexpr int kMaxSide = 16384;
constexpr int kMaxSteps = 1000;

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
  text += fmt::format("{:>5} {:>9} {:>10} {:>9}  {:<9} {}\n", "step", "sigma", "sigma_next", "timestep", "attention",
                      "mlp");
  for (const Step& step : report.steps) {
    text += fmt::format("{:>5} {:>9.6f} {:>10.6f} {:>9.3f}  {:<9} {}\n", step.index + 1, step.sigma, step.sigma_next,
                        static_cast<double>(step.sigma) * static_cast<double>(report.config.num_train_timesteps),
                        to_string(step.attention), to_string(step.mlp));
  }
  return text;
}

}  // namespace

int run_schedule(const ScheduleOptions& options) {
  ScheduleReport report;
  AutoencoderConfig vae;  // FLUX.1's where no model is named
  const JsonConfig no_overrides = JsonConfig::parse("{}", "no overrides");
  if (options.model.empty()) {
    report.model = "FLUX.1-dev";
    report.config = load_scheduler({}, true, no_overrides);
  } else {
    report.model = options.model.string();
    report.config = load_scheduler(options.model / "scheduler", true, no_overrides);
    vae = AutoencoderConfig::from_json(JsonConfig::load(options.model / "vae" / "config.json"));
  }
  report.width = checked_side("width", options.width, vae);
  report.height = checked_side("height", options.height, vae);
  if (options.steps < 1 || options.steps > kMaxSteps) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("steps: expected 1 to {}, found {}", kMaxSteps, options.steps));
  }
  report.image_tokens = (report.width / pixels_per_token(vae)) * (report.height / pixels_per_token(vae));
  report.steps = DenoisingSchedule::dense(flow_match_sigmas(report.config, options.steps, report.image_tokens)).steps();
  print_result(options.json ? to_json(report) : format_text(report));
  return kExitOk;
}

}  // namespace chipmunk::cli
