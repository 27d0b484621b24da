#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "chipmunk/error.h"
#include "commands.h"
#include "console.h"
#include "device_option.h"
#include "interrupt.h"
#include "io/png.h"
#include "json_output.h"
#include "model_locator.h"
#include "output_names.h"
#include "png_parameters.h"
#include "progress_printer.h"
#include "prompts.h"
#include "sparsity_command.h"

namespace chipmunk::cli {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

/// The files to load, the default model where nothing is named.
ModelFiles choose_files(ModelFiles files) {
  const fs::path* parts[] = {&files.diffusion_model, &files.vae,         &files.clip_l, &files.t5xxl,
                             &files.clip_tokenizer,  &files.t5_tokenizer};
  const bool has_part = std::any_of(std::begin(parts), std::end(parts), [](const fs::path* p) { return !p->empty(); });
  if (files.model.empty() && !has_part) files.model = find_default_model();
  return files;
}

/// The name that pictures carry: the last folder, or the transformer's file without its extension.
std::string model_name(const ModelFiles& files) {
  const fs::path& path = files.diffusion_model.empty() ? files.model : files.diffusion_model;
  std::error_code error;
  const fs::path whole = fs::canonical(path, error);
  const fs::path& known = error ? path : whole;
  return (fs::is_directory(known, error) ? known.filename() : known.stem()).string();
}

std::vector<Prompt> collect_prompts(const GenerateOptions& options) {
  if (!options.prompts_file.empty()) return read_prompts(options.prompts_file);
  if (!options.has_prompt) {
    throw Error(ErrorCode::kInvalidArgument, "no prompt: give --prompt TEXT or --prompts FILE");
  }
  return {{options.request.prompt, {}}};
}

void check_seed(const GenerateRequest& request) {
  // Picture i of a batch uses seed + i, which must stay a seed.
  const int64_t max = std::numeric_limits<int64_t>::max() - request.batch_count;
  if (request.seed >= -1 && request.seed <= max) return;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("seed: expected -1 (random) or 0 to {}, found {}", max, request.seed));
}

int64_t draw_seed() {
  // 32 bits: few enough digits to type again, and every tool takes them.
  return static_cast<int64_t>(std::random_device{}());
}

/// A validated request per prompt, with its seed.
std::vector<GenerateRequest> make_requests(const GenerateOptions& options, const std::vector<Prompt>& prompts,
                                           const Pipeline& pipeline) {
  std::vector<GenerateRequest> requests;
  for (const Prompt& prompt : prompts) {
    GenerateRequest request = options.request;
    request.prompt = prompt.text;
    if (request.seed == -1) request.seed = draw_seed();
    try {
      pipeline.validate(request);
    } catch (const Error& error) {
      throw Error(error.code(), error.what(), prompt.where);
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

/// Things that were asked for and have no effect.
void print_ineffective(const GenerateOptions& options, const Pipeline& pipeline) {
  if (options.has_guidance && !pipeline.has_guidance_embedding()) {
    print_notice("this model has no guidance embedding: --guidance has no effect");
  }
  if (!options.request.negative_prompt.empty() && options.request.true_cfg_scale <= 1.0f) {
    print_notice("--negative-prompt has no effect without --true-cfg-scale above 1");
  }
}

size_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<size_t>(usage.ru_maxrss) * 1024;  // Linux counts in KiB
}

std::string summary(const GenerateResult& result) {
  return fmt::format("done in {}: text {:.2f} s, denoising {:.2f} s, decoding {:.2f} s; peak memory {:.0f} MiB",
                     format_duration((result.text_ms + result.denoise_ms + result.decode_ms) / 1e3),
                     result.text_ms / 1e3, result.denoise_ms / 1e3, result.decode_ms / 1e3,
                     static_cast<double>(result.peak_memory_bytes) / (1 << 20));
}

/// A loaded model with what all prompts of a run share.
class Run {
 public:
  Run(const GenerateOptions& options, const ModelFiles& files, std::unique_ptr<Pipeline> pipeline)
      : options_(options), names_(options.output), pipeline_(std::move(pipeline)), model_name_(model_name(files)) {
    report_.model = (files.model.empty() ? files.diffusion_model : files.model).string();
    report_.architecture = pipeline_->architecture();
    report_.device = to_string(pipeline_->device());
    report_.fp8 = options_.fp8;
  }

  void generate(const std::vector<GenerateRequest>& requests, ProgressPrinter* progress) {
    count_ = requests.size() * static_cast<size_t>(options_.request.batch_count);
    // An unwritable place is found before hours of work, not after them.
    for (size_t i = 0; i < count_; ++i) check_writable(names_.name(i, count_));
    for (size_t i = 0; i < requests.size(); ++i) {
      if (requests.size() > 1) progress->set_title(fmt::format("prompt {}/{}", i + 1, requests.size()));
      if (options_.request.seed == -1) print_seed(requests[i].seed, progress);
      const GenerateResult result = pipeline_->generate(requests[i], *progress);
      for (size_t sample = 0; sample < result.samples.size(); ++sample) write(requests[i], result, sample);
      progress->line(summary(result));
    }
  }

  GenerateReport& report() { return report_; }

 private:
  void print_seed(int64_t seed, ProgressPrinter* progress) {
    // A drawn seed cannot be had again, so that even --quiet prints it.
    if (options_.quiet && !options_.json) {
      print_notice(fmt::format("seed {}", seed));
    } else {
      progress->line(fmt::format("seed: {}", seed));
    }
  }

  void write(const GenerateRequest& request, const GenerateResult& result, size_t sample) {
    PictureSettings settings;
    settings.prompt = request.prompt;
    if (request.true_cfg_scale > 1.0f) settings.negative_prompt = request.negative_prompt;
    settings.width = result.width;
    settings.height = result.height;
    settings.steps = request.steps;
    settings.guidance = request.guidance_scale;
    settings.has_guidance = pipeline_->has_guidance_embedding();
    settings.true_cfg_scale = request.true_cfg_scale;
    settings.seed = request.seed + static_cast<int64_t>(sample);
    settings.model = model_name_;
    settings.sparsity = fs::path(request.sparsity).filename().string();
    settings.fp8 = options_.fp8;
    const Frames& frames = result.samples[sample];
    const std::string path = names_.name(report_.pictures.size(), count_).string();
    const PngText texts[] = {{kPngParametersKey, format_parameters(settings)}};
    write_png(path, frames.width, frames.height, frames.rgb, texts);
    if (!options_.json) print_result(path);
    report_.pictures.push_back({path, request.prompt, request.negative_prompt, settings.seed, result.width,
                                result.height, request.steps, request.guidance_scale, request.true_cfg_scale,
                                request.sparsity, result.text_ms, result.denoise_ms, result.decode_ms,
                                result.peak_memory_bytes});
    report_.peak_memory_bytes = std::max(report_.peak_memory_bytes, result.peak_memory_bytes);
  }

  const GenerateOptions& options_;
  OutputNames names_;
  std::unique_ptr<Pipeline> pipeline_;
  std::string model_name_;
  size_t count_ = 0;
  GenerateReport report_;
};

}  // namespace

int run_generate(const GenerateOptions& options) {
  const Clock::time_point start = Clock::now();
  install_interrupt_handler();
  // What needs no model comes first: loading one takes a while.
  const Device device = choose_device(options.device);
  const std::vector<Prompt> prompts = collect_prompts(options);
  check_seed(options.request);
  std::vector<std::string> notices;
  if (!options.request.sparsity.empty()) load_sparsity(options.request.sparsity, &notices);
  const bool several = prompts.size() * static_cast<size_t>(options.request.batch_count) > 1;
  check_writable(OutputNames(options.output).name(0, several ? 2 : 1));
  if (options.request.preview != PreviewMode::kNone) {
    check_png_name(options.preview_path, "--preview-path");
    check_writable(options.preview_path);
  }

  ProgressPrinter progress({options.quiet, ::isatty(STDERR_FILENO) == 1, options.preview_path});
  for (const std::string& notice : notices) progress.on_notice(notice);
  const ModelFiles files = choose_files(options.files);
  progress.line("loading " + (files.model.empty() ? files.diffusion_model : files.model).string() + " on " +
                to_string(device));
  std::unique_ptr<Pipeline> pipeline =
      Pipeline::load({files, device, options.threads, 0, options.offload, options.fp8}, progress);
  const std::vector<GenerateRequest> requests = make_requests(options, prompts, *pipeline);
  print_ineffective(options, *pipeline);

  Run run(options, files, std::move(pipeline));
  run.report().load_ms = milliseconds_since(start);
  run.report().weights = progress.loaded();
  run.generate(requests, &progress);
  run.report().total_ms = milliseconds_since(start);
  run.report().peak_resident_bytes = peak_resident_bytes();
  if (options.json) print_result(to_json(run.report()));
  return kExitOk;
}

}  // namespace chipmunk::cli
