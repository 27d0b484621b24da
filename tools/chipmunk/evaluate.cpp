#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "chipmunk/error.h"
#include "commands.h"
#include "console.h"
#include "device_option.h"
#include "evaluation/contact_sheet.h"
#include "evaluation/score.h"
#include "interrupt.h"
#include "io/atomic_file.h"
#include "io/png.h"
#include "json_output.h"
#include "model_locator.h"
#include "progress_printer.h"
#include "sparsity_command.h"

namespace chipmunk::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSheetName = "contact_sheet.png";

std::string numbered(size_t index, const char* extension) { return fmt::format("{:03}{}", index, extension); }

std::string format_fraction(const Fraction& fraction) {
  if (fraction.total == 0) return fmt::format("{:>24}", "none");
  return fmt::format("{:5.1f} % [{:5.1f}, {:5.1f}]", 100 * fraction.value(), 100 * fraction.low(),
                     100 * fraction.high());
}

std::string format_table(const Score& score) {
  std::string text = fmt::format("{:<12} {:>24} {:>26}\n", "", "all [95 % interval]", "held out [95 % interval]");
  const auto row = [&](const char* name, Fraction ScoreRow::* column) {
    text += fmt::format("{:<12} {:>24} {:>26}\n", name, format_fraction(score.all.*column),
                        format_fraction(score.held_out.*column));
  };
  row("object", &ScoreRow::object);
  row("colour", &ScoreRow::colour);
  row("shape", &ScoreRow::shape);
  row("relation", &ScoreRow::relation);
  row("all correct", &ScoreRow::all_correct);
  return text + fmt::format("{} pictures, {} of them held out\n", score.all.all_correct.total,
                            score.held_out.all_correct.total);
}

/// Scores pictures as they come.
class Judge {
 public:
  explicit Judge(size_t count) : sheet_(static_cast<int>(count)) {}

  void add(const SceneSpec& scene, const Frames& picture) {
    const SceneVerdict verdict = check_scene(analyse_picture(picture), scene);
    score_.add(scene, verdict);
    sheet_.add(picture, verdict.all_correct);
  }

  const Score& score() const { return score_; }
  const Frames& sheet() const { return sheet_.image(); }

 private:
  Score score_;
  ContactSheet sheet_;
};

void check_not_interrupted() {
  if (interrupted()) throw Error(ErrorCode::kCancelled, "stopped");
}

/// Pictures 000.png, 001.png, ... beside their specifications, as an earlier run or another generator left them.
Judge judge_folder(const EvaluateOptions& options) {
  size_t count = 0;
  while ((options.limit == 0 || count < static_cast<size_t>(options.limit)) &&
         fs::exists(options.pictures / numbered(count, ".json"))) {
    ++count;
  }
  if (count == 0) {
    throw Error(ErrorCode::kNotFound, "expected 000.png and 000.json, found no 000.json", options.pictures.string());
  }
  Judge judge(count);
  for (size_t i = 0; i < count; ++i) {
    check_not_interrupted();
    const SceneSpec scene = scene_from_json(JsonConfig::load(options.pictures / numbered(i, ".json")));
    PngImage image = read_png(options.pictures / numbered(i, ".png"));
    judge.add(scene, {image.width, image.height, 1, 0.0, std::move(image.pixels)});
  }
  return judge;
}

Judge generate_and_judge(const EvaluateOptions& options, const fs::path& model, ProgressPrinter* progress) {
  std::vector<SceneSpec> scenes = load_suite(model / "suite.json");
  if (options.limit > 0) scenes.resize(std::min(scenes.size(), static_cast<size_t>(options.limit)));
  const Device device = choose_device(options.device);
  progress->line("loading " + model.string() + " on " + to_string(device));
  ModelFiles files;
  files.model = model;
  const std::unique_ptr<Pipeline> pipeline =
      Pipeline::load({files, device, options.threads, 0, options.offload, options.fp8}, *progress);
  GenerateRequest request = options.request;
  pipeline->validate(request);
  Judge judge(scenes.size());
  for (size_t i = 0; i < scenes.size(); ++i) {
    check_not_interrupted();
    progress->set_title(fmt::format("picture {}/{}", i + 1, scenes.size()));
    request.prompt = options.empty_prompt ? std::string() : scenes[i].prompt;
    request.seed = options.request.seed + static_cast<int64_t>(i);
    const GenerateResult result = pipeline->generate(request, *progress);
    const Frames& picture = result.samples.front();
    write_png(options.output / numbered(i, ".png"), picture.width, picture.height, picture.rgb);
    write_file(options.output / numbered(i, ".json"), to_json(scenes[i]) + "\n");
    judge.add(scenes[i], picture);
  }
  return judge;
}

}  // namespace

int run_evaluate(const EvaluateOptions& options) {
  install_interrupt_handler();
  if (options.suite != "scenes") {
    throw Error(ErrorCode::kInvalidArgument, "--suite: expected scenes, found \"" + options.suite + "\"");
  }
  if (options.request.seed < 0) throw Error(ErrorCode::kInvalidArgument, "--seed: expected 0 or more");
  std::vector<std::string> notices;
  if (!options.request.sparsity.empty()) load_sparsity(options.request.sparsity, &notices);
  const fs::path model = !options.pictures.empty() || !options.model.empty() ? options.model : find_default_model();
  std::error_code error;
  fs::create_directories(options.output, error);
  if (error) throw Error(ErrorCode::kIo, "cannot create the folder: " + error.message(), options.output.string());

  ProgressPrinter progress({options.quiet, ::isatty(STDERR_FILENO) == 1, {}});
  for (const std::string& notice : notices) progress.on_notice(notice);
  const Judge judge = options.pictures.empty() ? generate_and_judge(options, model, &progress) : judge_folder(options);
  const fs::path sheet = options.output / kSheetName;
  write_png(sheet, judge.sheet().width, judge.sheet().height, judge.sheet().rgb);
  print_result(options.json ? to_json(judge.score()) : format_table(judge.score()) + sheet.string() + "\n");
  return kExitOk;
}

}  // namespace chipmunk::cli
