#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "chipmunk/error.h"
#include "commands.h"
#include "comparison.h"
#include "comparison_report.h"
#include "console.h"
#include "device_option.h"
#include "evaluation/image_metrics.h"
#include "evaluation/scene_checker.h"
#include "html_report.h"
#include "interrupt.h"
#include "io/atomic_file.h"
#include "io/png.h"
#include "model_locator.h"
#include "output_names.h"
#include "picture_tools.h"
#include "progress_printer.h"
#include "prompts.h"
#include "sparsity_command.h"

namespace chipmunk::cli {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr const char* kDenseFolder = "dense";
constexpr const char* kFp8Name = "fp8";
constexpr const char* kJoinedFolder = "side_by_side";
constexpr const char* kJsonName = "compare.json";
constexpr const char* kHtmlName = "report.html";
constexpr const char* kPromptsName = "prompts.txt";
// Differences of a few levels out of 255 become visible.
constexpr int kDifferenceGain = 8;
// The report stays a few megabytes.
constexpr int kReportWidth = 768;
constexpr size_t kReportPictures = 12;  // of all variants
constexpr size_t kMaxPicturesOfVariant = 4;

std::string numbered(size_t index) { return fmt::format("{:03}.png", index); }

std::string format_psnr(double value) { return std::isfinite(value) ? fmt::format("{:.2f} dB", value) : "equal"; }

/// One picture to make.
struct Job {
  Prompt prompt;
  std::optional<SceneSpec> scene;  ///< with a suite
};

std::vector<Job> collect_jobs(const CompareOptions& options, const fs::path& model) {
  std::vector<Job> jobs;
  if (!options.suite.empty()) {
    if (options.suite != "scenes") {
      throw Error(ErrorCode::kInvalidArgument, "--suite: expected scenes, found \"" + options.suite + "\"");
    }
    for (SceneSpec& scene : load_suite(model / "suite.json")) {
      const Prompt prompt{scene.prompt, {}};
      jobs.push_back({prompt, std::move(scene)});
    }
  } else if (!options.prompts_file.empty()) {
    for (Prompt& prompt : read_prompts(options.prompts_file)) jobs.push_back({std::move(prompt), {}});
  } else if (options.has_prompt) {
    jobs.push_back({{options.request.prompt, {}}, {}});
  } else {
    throw Error(ErrorCode::kInvalidArgument, "no prompt: give --prompt TEXT, --prompts FILE or --suite scenes");
  }
  const auto skip = static_cast<size_t>(options.skip);
  if (skip >= jobs.size()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("--skip: expected less than the {} prompts, found {}", jobs.size(), skip));
  }
  jobs.erase(jobs.begin(), jobs.begin() + options.skip);
  if (options.limit > 0) jobs.resize(std::min(jobs.size(), static_cast<size_t>(options.limit)));
  return jobs;
}

/// A preset's name or the file's stem, as a folder that is none of `taken`.
std::string variant_name(const std::string& source, std::vector<std::string>* taken) {
  const std::vector<std::string> presets = SparsityConfig::preset_names();
  const bool preset = std::find(presets.begin(), presets.end(), source) != presets.end();
  std::string base = preset ? source : fs::path(source).stem().string();
  std::replace_if(
      base.begin(), base.end(),
      [](unsigned char letter) {
        return letter < 0x80 && std::isalnum(letter) == 0 && letter != '-' && letter != '_' && letter != '.';
      },
      '_');
  if (base.starts_with('.') || base.empty()) base.insert(0, "sparse");
  std::string name = base;
  for (int i = 2; std::find(taken->begin(), taken->end(), name) != taken->end(); ++i) {
    name = fmt::format("{}-{}", base, i);
  }
  taken->push_back(name);
  return name;
}

std::vector<Variant> load_variants(const CompareOptions& options, std::vector<std::string>* notices) {
  if (options.sparsity.empty() && !options.fp8) {
    throw Error(ErrorCode::kInvalidArgument, "no variant: give --sparsity NAME or FILE, or --fp8");
  }
  std::vector<std::string> taken = {kDenseFolder, kJoinedFolder, kJsonName, kHtmlName, kPromptsName, kFp8Name};
  std::vector<Variant> variants;
  if (options.fp8) variants.push_back({kFp8Name, "", SparsityConfig::dense().to_yaml(), {}});
  for (const std::string& source : options.sparsity) {
    const std::string settings = load_sparsity(source, notices).to_yaml();
    const std::string name = variant_name(source, &taken);
    variants.push_back({options.fp8 ? name + "-" + kFp8Name : name, source, settings, {}});
  }
  return variants;
}

void check_seeds(int64_t first, size_t count) {
  const int64_t max = std::numeric_limits<int64_t>::max() - static_cast<int64_t>(count);
  if (first >= 0 && first <= max) return;
  throw Error(ErrorCode::kInvalidArgument, fmt::format("--seed: expected 0 to {}, found {}", max, first));
}

void check_no_file(const fs::path& output) {
  std::error_code error;
  if (fs::exists(output, error) && !fs::is_directory(output, error)) {
    throw Error(ErrorCode::kIo, "expected a folder, found a file", output.string());
  }
}

void create_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw Error(ErrorCode::kIo, "cannot create the folder: " + error.message(), folder.string());
}

void check_not_interrupted() {
  if (interrupted()) throw Error(ErrorCode::kCancelled, "stopped");
}

/// Passes on to the printer what it can draw in place: a log gets a line a picture. Keeps the latents of every step or,
/// with a reference, how far they are from it.
class LatentSink : public ProgressSink {
 public:
  using Latents = std::vector<std::vector<float>>;  // [steps][values]

  LatentSink(ProgressPrinter* printer, bool wanted, const Latents* reference)
      : printer_(*printer), wanted_(wanted), reference_(reference) {}

  Latents& latents() { return latents_; }
  std::vector<double>& errors() { return errors_; }

  void on_stage(std::string_view stage) override {
    if (printer_.terminal()) printer_.on_stage(stage);
  }
  void on_step(const StepReport& report) override {
    if (printer_.terminal()) printer_.on_step(report);
  }
  void on_notice(std::string_view message) override { printer_.on_notice(message); }
  bool cancelled() override { return printer_.cancelled(); }
  bool wants_latents() const override { return wanted_; }

  void on_latents(int step_index, const float* values, size_t count) override {
    if (reference_ == nullptr) {
      latents_.emplace_back(values, values + count);
    } else {
      const auto step = static_cast<size_t>(step_index);
      errors_.resize(std::max(errors_.size(), step + 1), std::numeric_limits<double>::quiet_NaN());
      if (step < reference_->size()) errors_[step] = relative_error(values, count, (*reference_)[step]);
    }
  }

 private:
  static double relative_error(const float* values, size_t count, const std::vector<float>& reference) {
    if (count != reference.size()) throw Error(ErrorCode::kInternal, "generations had latents of different sizes");
    double difference = 0.0, norm = 0.0;
    for (size_t i = 0; i < count; ++i) {
      const double expected = static_cast<double>(reference[i]), error = static_cast<double>(values[i]) - expected;
      difference += error * error;
      norm += expected * expected;
    }
    return std::sqrt(difference / norm);
  }

  ProgressPrinter& printer_;
  bool wanted_;
  const Latents* reference_;
  Latents latents_;
  std::vector<double> errors_;
};

/// A loaded model that makes the pictures of all jobs, dense and with every variant.
class Comparer {
 public:
  /// of_variants: that makes their pictures; null: the same.
  Comparer(const CompareOptions& options, std::vector<Job> jobs, std::unique_ptr<Pipeline> pipeline,
           std::unique_ptr<Pipeline> of_variants, ProgressPrinter* progress, Comparison* comparison)
      : options_(options),
        jobs_(std::move(jobs)),
        pipeline_(std::move(pipeline)),
        of_variants_(std::move(of_variants)),
        progress_(*progress),
        comparison_(*comparison) {}

  /// Every request of the run.
  void validate() const {
    for (size_t i = 0; i < jobs_.size(); ++i) {
      try {
        pipeline_->validate(request(i, ""));
      } catch (const Error& error) {
        throw Error(error.code(), error.what(), jobs_[i].prompt.where);
      }
    }
    for (const Variant& variant : comparison_.variants) {
      try {
        pipeline_->validate(request(0, variant.source));
      } catch (const Error& error) {
        throw Error(ErrorCode::kInvalidArgument, error.what(), variant.name);
      }
    }
  }

  void run() {
    warm_up();
    const Clock::time_point start = Clock::now();
    for (size_t i = 0; i < jobs_.size(); ++i) {
      const std::string title = fmt::format("picture {}/{}, ", i + 1, jobs_.size());
      LatentSink::Latents latents;
      const Frames dense = generate(i, title + kDenseFolder, "", kDenseFolder, &comparison_.dense, &latents);
      for (Variant& variant : comparison_.variants) {
        const Frames sparse = generate(i, title + variant.name, variant.source, variant.name, &variant.run, &latents);
        ComparedPicture& picture = variant.run.pictures.back();
        picture.psnr = psnr(dense, sparse);
        picture.ssim = ssim(dense, sparse);
        if (!options_.pictures) continue;
        picture.side_by_side = fs::path(kJoinedFolder) / variant.name / numbered(comparison_.first + i);
        write(picture.side_by_side, side_by_side(dense, sparse, kDifferenceGain));
      }
      const std::chrono::duration<double> elapsed = Clock::now() - start;
      print_summary(i, elapsed.count() / static_cast<double>(i + 1) * static_cast<double>(jobs_.size() - i - 1));
    }
  }

 private:
  GenerateRequest request(size_t job, const std::string& sparsity) const {
    GenerateRequest request = options_.request;
    request.prompt = jobs_[job].prompt.text;
    request.seed += static_cast<int64_t>(comparison_.first + job);
    request.sparsity = sparsity;
    request.record = options_.record;
    return request;
  }

  /// One step, so that no later time contains reading the weights from the disk.
  void warm_up() {
    progress_.set_title("warm-up");
    GenerateRequest short_request = request(0, "");
    short_request.steps = 1;
    short_request.record = false;
    LatentSink sink(&progress_, false, nullptr);
    pipeline_->generate(short_request, sink);
    if (of_variants_ != nullptr) of_variants_->generate(short_request, sink);
  }

  /// Fills `latents` with the dense run's, against which those of variants are held.
  Frames generate(size_t job, const std::string& title, const std::string& sparsity, const std::string& folder,
                  ComparedRun* run, LatentSink::Latents* latents) {
    check_not_interrupted();
    progress_.set_title(title);
    const bool is_variant = run != &comparison_.dense;
    LatentSink sink(&progress_, options_.record, is_variant ? latents : nullptr);
    Pipeline& pipeline = is_variant && of_variants_ != nullptr ? *of_variants_ : *pipeline_;
    GenerateResult result = pipeline.generate(request(job, sparsity), sink);
    if (!is_variant) *latents = std::move(sink.latents());
    ComparedPicture picture;
    picture.denoise_ms = result.denoise_ms;
    picture.latent_error = std::move(sink.errors());
    for (const StepRecord& step : result.steps) {
      if (step.attention == "skip") picture.skipped_steps.push_back(step.index);
      picture.movement.push_back(step.movement >= 0.0 ? step.movement : std::numeric_limits<double>::quiet_NaN());
    }
    run->records.add(result.steps);
    Frames& frames = result.samples.front();
    if (const std::optional<SceneSpec>& scene = jobs_[job].scene) {
      const SceneVerdict verdict = check_scene(analyse_picture(frames), *scene);
      run->score.add(*scene, verdict);
      picture.all_correct = verdict.all_correct;
    }
    if (options_.pictures) {
      picture.file = fs::path(folder) / numbered(comparison_.first + job);
      write(picture.file, frames);
    }
    run->pictures.push_back(std::move(picture));
    comparison_.width = result.width;
    comparison_.height = result.height;
    return std::move(frames);
  }

  void print_summary(size_t job, double seconds_left) const {
    std::string text = fmt::format("picture {}/{}: dense {:.1f} s", job + 1, jobs_.size(),
                                   comparison_.dense.pictures.back().denoise_ms / 1e3);
    for (const Variant& variant : comparison_.variants) {
      const ComparedPicture& picture = variant.run.pictures.back();
      text += fmt::format("; {} {:.1f} s, {}", variant.name, picture.denoise_ms / 1e3, format_psnr(picture.psnr));
    }
    progress_.line(text + "; " + format_duration(seconds_left) + " left");
  }

  void write(const fs::path& name, const Frames& frames) const {
    write_png(options_.output / name, frames.width, frames.height, frames.rgb);
  }

  const CompareOptions& options_;
  std::vector<Job> jobs_;
  std::unique_ptr<Pipeline> pipeline_, of_variants_;
  ProgressPrinter& progress_;
  Comparison& comparison_;
};

/// Creates the folders and takes away an earlier run's reports, which would not fit to the new pictures.
void prepare_output(const CompareOptions& options, const Comparison& comparison) {
  create_folder(options.output);
  std::vector<fs::path> folders;
  if (options.pictures) folders.push_back(options.output / kDenseFolder);
  for (const Variant& variant : comparison.variants) {
    if (!options.pictures) break;
    folders.push_back(options.output / variant.name);
    folders.push_back(options.output / kJoinedFolder / variant.name);
  }
  for (const fs::path& folder : folders) {
    create_folder(folder);
    check_writable(folder / numbered(comparison.first));
    std::error_code error;
    if (fs::exists(folder / numbered(comparison.first + comparison.prompts.size()), error)) {
      print_notice(folder.string() + " holds more pictures, of an earlier run: they stay, but are not compared");
    }
  }
  for (const char* name : {kJsonName, kHtmlName}) {
    std::error_code error;
    fs::remove(options.output / name, error);
    check_writable(options.output / name);
  }
  std::string prompts;
  for (std::string prompt : comparison.prompts) {
    std::replace_if(prompt.begin(), prompt.end(), [](char letter) { return letter == '\n' || letter == '\r'; }, ' ');
    prompts += prompt + "\n";
  }
  write_file(options.output / kPromptsName, prompts);
}

/// The worst and the best picture of a variant by PSNR, and some between them.
ReportGallery choose_pictures(const CompareOptions& options, const Comparison& comparison, const Variant& variant) {
  const std::vector<ComparedPicture>& pictures = variant.run.pictures;
  std::vector<size_t> order(pictures.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return pictures[a].psnr < pictures[b].psnr; });
  const size_t share = std::clamp(kReportPictures / comparison.variants.size(), size_t{1}, kMaxPicturesOfVariant);
  const size_t count = std::min(share, order.size());
  ReportGallery gallery;
  for (size_t i = 0; i < count; ++i) {
    const size_t chosen = order[count == 1 ? 0 : i * (order.size() - 1) / (count - 1)];
    const ComparedPicture& picture = pictures[chosen];
    PngImage image = read_png(options.output / picture.side_by_side);
    const Frames small = shrink({image.width, image.height, 1, 0.0, std::move(image.pixels)}, kReportWidth);
    gallery.pictures.push_back({fmt::format("{:03}, PSNR {}, SSIM {:.4f}: {}", comparison.first + chosen,
                                            format_psnr(picture.psnr), picture.ssim, comparison.prompts[chosen]),
                                encode_png(small.width, small.height, small.rgb), small.width, small.height});
  }
  return gallery;
}

void write_reports(const CompareOptions& options, const Comparison& comparison) {
  const std::string json = to_json(comparison);
  std::vector<ReportGallery> galleries;
  for (const Variant& variant : comparison.variants) {
    galleries.push_back(options.pictures ? choose_pictures(options, comparison, variant) : ReportGallery{});
  }
  write_file(options.output / kHtmlName, to_html(comparison, galleries));
  write_file(options.output / kJsonName, json);
  print_result(options.json ? json : format_table(comparison) + (options.output / kHtmlName).string() + "\n");
}

}  // namespace

int run_compare(const CompareOptions& options) {
  install_interrupt_handler();
  // What needs no model comes first: loading one takes a while.
  Comparison comparison;
  std::vector<std::string> notices;
  comparison.variants = load_variants(options, &notices);
  const Device device = choose_device(options.device);
  const fs::path model = options.model.empty() ? find_default_model() : options.model;
  std::vector<Job> jobs = collect_jobs(options, model);
  comparison.first = static_cast<size_t>(options.skip);
  check_seeds(options.request.seed, comparison.first + jobs.size());
  check_no_file(options.output);

  ProgressPrinter progress({options.quiet, ::isatty(STDERR_FILENO) == 1, {}});
  for (const std::string& notice : notices) progress.on_notice(notice);
  progress.line("loading " + model.string() + " on " + to_string(device));
  ModelFiles files;
  files.model = model;
  LoadOptions load{files, device, options.threads, 0, options.offload};
  std::unique_ptr<Pipeline> pipeline = Pipeline::load(load, progress), of_variants;
  if (options.fp8) {
    load.fp8 = true;
    of_variants = Pipeline::load(load, progress);
  }
  comparison.model = model.string();
  comparison.architecture = pipeline->architecture();
  comparison.device = to_string(pipeline->device());
  comparison.threads = options.threads;
  comparison.steps = options.request.steps;
  comparison.guidance = options.request.guidance_scale;
  comparison.seed = options.request.seed;
  comparison.recorded = options.record;
  comparison.suite = options.suite;
  for (const Job& job : jobs) comparison.prompts.push_back(job.prompt.text);

  Comparer comparer(options, std::move(jobs), std::move(pipeline), std::move(of_variants), &progress, &comparison);
  comparer.validate();
  prepare_output(options, comparison);
  comparer.run();
  write_reports(options, comparison);
  return kExitOk;
}

}  // namespace chipmunk::cli
