#include "command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "commands.h"
#include "console.h"
#include "device_option.h"
#include "help_texts.h"
#include "sparsity_command.h"

// The only file that includes CLI11: the header costs seconds.
namespace chipmunk::cli {
namespace {

// More threads than any machine has; OpenMP ends the program when the system refuses to start one.
constexpr int kMaxThreads = 1024;

/// Groups of the help text, in the order of their first use.
constexpr const char* kModelGroup = "Model";
constexpr const char* kPromptGroup = "Prompt";
constexpr const char* kPictureGroup = "Picture";
constexpr const char* kMachineGroup = "Machine";
constexpr const char* kOutputGroup = "Output";

template <typename Value>
CLI::Option* add(CLI::App* app, const char* names, Value& value, const char* type, const char* help,
                 const char* group) {
  return app->add_option(names, value, help)->option_text(type)->group(group);
}

/// An empty path is a shell variable that was not set; it must not stand for a default.
std::string check_path(const std::string& path) { return path.empty() ? "expected a path, found an empty one" : ""; }

std::string check_sparsity_name(const std::string& name) {
  return name.empty() ? "expected a preset or a file, found an empty name" : "";
}

CLI::Option* add_sparsity(CLI::App* app, std::string& sparsity, const char* help) {
  return app->add_option("--sparsity", sparsity, help)->option_text("NAME|FILE")->check(check_sparsity_name);
}

void add_model_options(CLI::App* app, ModelFiles* files) {
  add(app, "-m,--model", files->model, "DIR",
      "Model folder with model_index.json. Without it and without single files: the model that comes with Chipmunk",
      kModelGroup)
      ->check(check_path);
  const auto part = [app](const char* name, std::filesystem::path& path, const char* type, const char* help) {
    add(app, name, path, type, help, kModelGroup)->check(check_path);
  };
  part("--diffusion-model", files->diffusion_model, "PATH",
       "Transformer: single file or folder; wins over the model's");
  part("--vae", files->vae, "PATH", "VAE: single file or folder; wins over the model's");
  part("--clip_l", files->clip_l, "PATH", "CLIP text encoder: single file or folder; wins over the model's");
  part("--t5xxl", files->t5xxl, "PATH", "T5 encoder: single file or folder; wins over the model's");
  part("--clip-tokenizer", files->clip_tokenizer, "DIR", "Folder with CLIP's vocab.json and merges.txt");
  part("--t5-tokenizer", files->t5_tokenizer, "DIR", "Folder with T5's tokenizer.json or spiece.model");
  part("--model-config", files->model_config, "FILE", "JSON with settings that single files cannot tell, see below");
}

void add_prompt_options(CLI::App* app, GenerateOptions* options) {
  GenerateRequest& request = options->request;
  auto* prompt = app->add_option_function<std::string>(
      "-p,--prompt",
      [options](const std::string& text) {
        options->request.prompt = text;
        options->has_prompt = true;
      },
      "What the picture shows; may be empty");
  prompt->option_text("TEXT")->group(kPromptGroup);
  add(app, "--prompts", options->prompts_file, "FILE", "Many prompts without loading the model again, see below",
      kPromptGroup)
      ->check(check_path)
      ->excludes(prompt);
  add(app, "-n,--negative-prompt", request.negative_prompt, "TEXT",
      "What the picture should not show; needs --true-cfg-scale above 1", kPromptGroup);
  add(app, "--true-cfg-scale", request.true_cfg_scale, "FLOAT [1]",
      "Classifier-free guidance with a second forward a step; 1 is off", kPromptGroup);
  app->add_option_function<float>(
         "--guidance,--guidance-scale",
         [options](const float& scale) {
           options->request.guidance_scale = scale;
           options->has_guidance = true;
         },
         "Distilled guidance, for models that have it (FLUX.1-dev)")
      ->option_text("FLOAT [3.5]")
      ->group(kPromptGroup);
  add(app, "--max-sequence-length", request.max_sequence_length, "INT [512]",
      "Tokens that T5 reads of a prompt, up to 512 and what the tokenizer allows", kPromptGroup);
}

/// CLI11 takes integers that do not fit into 64 bits for the largest one.
int64_t parse_seed(const std::string& text) {
  int64_t seed = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, seed);
  if (error == std::errc() && stop == end) return seed;
  throw CLI::ValidationError("--seed", "expected an integer of 64 bits, found \"" + text + "\"");
}

void add_picture_options(CLI::App* app, GenerateOptions* options) {
  GenerateRequest& request = options->request;
  add(app, "-W,--width", request.width, "INT [0]", "Pixels, a multiple of 16; 0 for the model's native size",
      kPictureGroup);
  add(app, "-H,--height", request.height, "INT [0]", "Pixels, a multiple of 16; 0 for the model's native size",
      kPictureGroup);
  add(app, "--steps", request.steps, "INT [28]", "Denoising steps, 1 to 1000", kPictureGroup);
  add_sparsity(app, request.sparsity, "Compute sparsely: a preset (chipmunk sparsity show lists them) or a YAML file")
      ->group(kPictureGroup);
  app->add_option_function<std::string>(
         "-s,--seed", [&request](const std::string& text) { request.seed = parse_seed(text); },
         "Same seed, same picture; -1 draws one and prints it")
      ->option_text("INT [-1]")
      ->group(kPictureGroup);
  add(app, "-b,--batch-count", request.batch_count, "INT [1]", "Pictures of each prompt, in one forward", kPictureGroup)
      ->check(CLI::Range(1, 64));
  auto* on = app->add_flag_callback(
      "--vae-tiling", [&request] { request.vae_tiling = VaeTiling::kOn; },
      "Decode in tiles, which takes less memory. Default: above 1024 x 1024 pixels");
  auto* off = app->add_flag_callback(
      "--no-vae-tiling", [&request] { request.vae_tiling = VaeTiling::kOff; }, "Decode in one piece at any size");
  on->group(kPictureGroup)->option_text(" ")->excludes(off);
  off->group(kPictureGroup)->option_text(" ");
}

CLI::Option* add_offload(CLI::App* app, Offload& offload) {
  return app
      ->add_option_function<std::string>(
          "--offload",
          [&offload](const std::string& name) {
            const std::optional<Offload> parsed = parse_offload(name);
            if (!parsed)
              throw CLI::ValidationError("--offload", "expected none, text or blocks, found \"" + name + "\"");
            offload = *parsed;
          },
          "Weights that wait in main memory until the GPU needs them: the text encoders', or the blocks' too")
      ->option_text("none|text|blocks [none]");
}

CLI::Option* add_fp8(CLI::App* app, bool& fp8) {
  return app
      ->add_flag("--fp8", fp8,
                 "Linears of the transformer's blocks in fp8: less memory, faster on Hopper GPUs, somewhat less exact")
      ->option_text(" ");
}

void add_machine_options(CLI::App* app, GenerateOptions* options) {
  add(app, "--device", options->device, "cpu|cuda[:i]|auto [auto]", "Where to compute; auto: cuda if there is one",
      kMachineGroup);
  add_offload(app, options->offload)->group(kMachineGroup);
  add_fp8(app, options->fp8)->group(kMachineGroup);
  add(app, "--threads", options->threads, "INT [0]", "CPU threads; 0 for all cores", kMachineGroup)
      ->check(CLI::Range(0, kMaxThreads));
}

PreviewMode parse_preview(const std::string& name) {
  if (name == "none") return PreviewMode::kNone;
  if (name == "proj") return PreviewMode::kProjection;
  if (name == "vae") return PreviewMode::kVae;
  throw CLI::ValidationError("--preview", "expected none, proj or vae, found \"" + name + "\"");
}

void add_output_options(CLI::App* app, GenerateOptions* options) {
  GenerateRequest& request = options->request;
  add(app, "-o,--output", options->output, "PATH [output.png]", "Where pictures go, see below", kOutputGroup);
  app->add_option_function<std::string>(
         "--preview", [&request](const std::string& name) { request.preview = parse_preview(name); },
         "Write what the picture would be while steps go on: proj is fast and coarse, vae runs the decoder")
      ->option_text("none|proj|vae [none]")
      ->group(kOutputGroup);
  add(app, "--preview-interval", request.preview_interval, "INT [1]", "Steps between previews", kOutputGroup);
  add(app, "--preview-path", options->preview_path, "FILE [preview.png]", "File that each preview replaces",
      kOutputGroup);
  app->add_flag("--json", options->json, "One JSON object on stdout at the end, in place of the paths")
      ->group(kOutputGroup);
  app->add_flag("--quiet", options->quiet, "No progress on stderr, only notices and errors")->group(kOutputGroup);
}

void add_generate(CLI::App* app, ParsedCommand* command) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* generate = app->add_subcommand("generate", "Make pictures from prompts");
  add_model_options(generate, &options->files);
  add_prompt_options(generate, options.get());
  add_picture_options(generate, options.get());
  add_machine_options(generate, options.get());
  add_output_options(generate, options.get());
  generate->footer(kGenerateExamples);
  generate->callback([command, options] { command->run = [options] { return run_generate(*options); }; });
}

void add_inspect(CLI::App* app, ParsedCommand* command) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* inspect =
      app->add_subcommand("inspect", "Show what a model folder or file holds, or what this machine computes with");
  auto* path = inspect->add_option("path", options->path, "Model folder, component folder or .safetensors file")
                   ->option_text("PATH")
                   ->check(check_path);
  auto* tensors = inspect->add_flag("--tensors", options->tensors, "List every tensor with its dtype and shape");
  inspect->add_flag("--device", options->device, "Show the CPU and the GPUs in place of a model")
      ->excludes(path)
      ->excludes(tensors);
  inspect->add_flag("--json", options->json, "One JSON object on stdout");
  inspect->parse_complete_callback([options] {
    if (!options->device && options->path.empty()) throw CLI::RequiredError("path");
  });
  inspect->footer(kInspectExamples);
  inspect->callback([command, options] { command->run = [options] { return run_inspect(*options); }; });
}

void add_schedule(CLI::App* app, ParsedCommand* command) {
  auto options = std::make_shared<ScheduleOptions>();
  CLI::App* schedule = app->add_subcommand("schedule", "Show the denoising steps of a run, without running it");
  schedule->add_option("-m,--model", options->model, "Model folder; default: FLUX.1-dev's settings")
      ->option_text("DIR");
  schedule->add_option("-W,--width", options->width, "Pixels; 0 for the model's native size")->option_text("INT [0]");
  schedule->add_option("-H,--height", options->height, "Pixels; 0 for the model's native size")->option_text("INT [0]");
  schedule->add_option("--steps", options->steps, "Denoising steps, 1 to 1000")->option_text("INT [28]");
  add_sparsity(schedule, options->sparsity, "Preset or YAML file: shows what each step computes and what that saves");
  schedule->add_flag("--json", options->json, "One JSON object on stdout");
  schedule->footer(kScheduleExamples);
  schedule->callback([command, options] { command->run = [options] { return run_schedule(*options); }; });
}

void add_evaluate(CLI::App* app, ParsedCommand* command) {
  auto options = std::make_shared<EvaluateOptions>();
  CLI::App* evaluate = app->add_subcommand("evaluate", "Judge the demo model: does it show what prompts say");
  GenerateRequest& request = options->request;
  evaluate->add_option("--suite", options->suite, "Which prompts: scenes")->option_text("NAME [scenes]");
  evaluate->add_option("-m,--model", options->model, "Model folder with suite.json; default: the one with Chipmunk")
      ->option_text("DIR")
      ->check(check_path);
  evaluate
      ->add_option("--pictures", options->pictures, "Judge 000.png with 000.json, ... of a folder; generate nothing")
      ->option_text("DIR")
      ->check(check_path);
  evaluate->add_option("--limit", options->limit, "Only the first prompts; 0 for all")
      ->option_text("INT [0]")
      ->check(CLI::NonNegativeNumber);
  evaluate->add_option("--steps", request.steps, "Denoising steps, 1 to 1000")->option_text("INT [28]");
  evaluate->add_option("--guidance,--guidance-scale", request.guidance_scale, "Distilled guidance")
      ->option_text("FLOAT [3.5]");
  evaluate->add_option("--true-cfg-scale", request.true_cfg_scale, "Classifier-free guidance; 1 is off")
      ->option_text("FLOAT [1]");
  evaluate
      ->add_option_function<std::string>(
          "-s,--seed", [&request](const std::string& text) { request.seed = parse_seed(text); },
          "Picture i uses seed + i")
      ->option_text("INT [0]");
  add_sparsity(evaluate, request.sparsity, "Compute sparsely: a preset or a YAML file");
  evaluate->add_option("-W,--width", request.width, "Pixels; 0 for the model's native size")->option_text("INT [0]");
  evaluate->add_option("-H,--height", request.height, "Pixels; 0 for the model's native size")->option_text("INT [0]");
  evaluate->add_flag("--empty-prompt", options->empty_prompt, "Replace all prompts by nothing: the chance level");
  evaluate->add_option("-o,--output", options->output, "Folder for pictures, specifications and contact sheet")
      ->option_text("DIR [evaluation]")
      ->check(check_path);
  evaluate->add_option("--device", options->device, "Where to compute")->option_text("cpu|cuda[:i]|auto [auto]");
  add_offload(evaluate, options->offload);
  add_fp8(evaluate, options->fp8);
  evaluate->add_option("--threads", options->threads, "CPU threads; 0 for all cores")
      ->option_text("INT [0]")
      ->check(CLI::Range(0, kMaxThreads));
  evaluate->add_flag("--json", options->json, "One JSON object on stdout, in place of the table");
  evaluate->add_flag("--quiet", options->quiet, "No progress on stderr, only notices and errors");
  evaluate->callback([command, options] { command->run = [options] { return run_evaluate(*options); }; });
}

void add_compare_prompts(CLI::App* app, CompareOptions* options) {
  auto* prompt = app->add_option_function<std::string>(
      "-p,--prompt",
      [options](const std::string& text) {
        options->request.prompt = text;
        options->has_prompt = true;
      },
      "What the picture shows");
  prompt->option_text("TEXT")->group(kPromptGroup);
  auto* file = add(app, "--prompts", options->prompts_file, "FILE", "Prompts, one a line", kPromptGroup);
  file->check(check_path)->excludes(prompt);
  auto* suite = add(app, "--suite", options->suite, "NAME",
                    "scenes: the prompts of the model's suite.json; pictures are judged too", kPromptGroup);
  suite->excludes(prompt)->excludes(file)->check([](const std::string& name) {
    return name == "scenes" ? std::string() : "expected scenes, found \"" + name + "\"";
  });
  add(app, "--skip", options->skip, "INT [0]", "Prompts to leave out before the first; the others keep their seeds",
      kPromptGroup)
      ->check(CLI::NonNegativeNumber);
  add(app, "--limit", options->limit, "INT [0]", "Only the first prompts, of those not skipped; 0 for all",
      kPromptGroup)
      ->check(CLI::NonNegativeNumber);
  add(app, "--guidance,--guidance-scale", options->request.guidance_scale, "FLOAT [3.5]", "Distilled guidance",
      kPromptGroup);
}

void add_compare(CLI::App* app, ParsedCommand* command) {
  auto options = std::make_shared<CompareOptions>();
  CLI::App* compare = app->add_subcommand("compare", "Make pictures dense and sparse, and measure how they differ");
  GenerateRequest& request = options->request;
  add(compare, "-m,--model", options->model, "DIR", "Model folder; default: the one with Chipmunk", kModelGroup)
      ->check(check_path);
  add_compare_prompts(compare, options.get());
  add(compare, "--sparsity", options->sparsity, "NAME|FILE",
      "A variant: preset or YAML file. May be given several times; all share one dense run", kPictureGroup)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->check(check_sparsity_name);
  add(compare, "--steps", request.steps, "INT [28]", "Denoising steps, 1 to 1000", kPictureGroup);
  add(compare, "-W,--width", request.width, "INT [0]", "Pixels; 0 for the model's native size", kPictureGroup);
  add(compare, "-H,--height", request.height, "INT [0]", "Pixels; 0 for the model's native size", kPictureGroup);
  compare
      ->add_option_function<std::string>(
          "-s,--seed", [&request](const std::string& text) { request.seed = parse_seed(text); },
          "Picture i uses seed + i")
      ->option_text("INT [0]")
      ->group(kPictureGroup);
  add(compare, "--device", options->device, "cpu|cuda[:i]|auto [auto]", "Where to compute", kMachineGroup);
  add_offload(compare, options->offload)->group(kMachineGroup);
  compare
      ->add_flag(
          "--fp8", options->fp8,
          "All variants with the linears of the transformer's blocks in fp8, and a variant fp8 that is not sparse; "
          "the dense run stays as it is. Loads the model twice")
      ->group(kMachineGroup)
      ->option_text(" ");
  add(compare, "--threads", options->threads, "INT [0]", "CPU threads; 0 for all cores", kMachineGroup)
      ->check(CLI::Range(0, kMaxThreads));
  add(compare, "-o,--output", options->output, "DIR [comparison]", "Folder for everything, see below", kOutputGroup)
      ->check(check_path);
  compare
      ->add_flag_callback(
          "--no-record", [options] { options->record = false; },
          "Leave out what steps and layers did, whose recording takes time: for timings")
      ->group(kOutputGroup)
      ->option_text(" ");
  compare
      ->add_flag_callback(
          "--no-pictures", [options] { options->pictures = false; },
          "Write no pictures, only what was measured of them")
      ->group(kOutputGroup)
      ->option_text(" ");
  compare->add_flag("--json", options->json, "compare.json on stdout, in place of the table")->group(kOutputGroup);
  compare->add_flag("--quiet", options->quiet, "No progress on stderr, only notices and errors")->group(kOutputGroup);
  compare->footer(kCompareExamples);
  compare->callback([command, options] { command->run = [options] { return run_compare(*options); }; });
}

void add_sparsity_command(CLI::App* app, ParsedCommand* command) {
  auto name = std::make_shared<std::string>();
  CLI::App* sparsity = app->add_subcommand("sparsity", "Show and check settings of the sparse method, without a model");
  sparsity->require_subcommand(1);
  sparsity->footer(kSparsityExamples);
  CLI::App* show = sparsity->add_subcommand("show", "Print all settings as YAML; without a name, the presets' names");
  show->add_option("name", *name, "Preset or YAML file")->option_text("NAME|FILE")->check(check_sparsity_name);
  show->callback([command, name] { command->run = [name] { return run_sparsity_show(*name); }; });
  CLI::App* check =
      sparsity->add_subcommand("check", "Say whether a file is valid, or what is wrong and in which line");
  check->add_option("name", *name, "YAML file or preset")->option_text("FILE")->check(check_sparsity_name)->required();
  check->callback([command, name] { command->run = [name] { return run_sparsity_check(*name); }; });
}

void add_bench_flux(CLI::App* bench, ParsedCommand* command) {
  auto options = std::make_shared<BenchFluxOptions>();
  CLI::App* flux = bench->add_subcommand("flux", "A generation's stages with random weights, whole and op by op");
  flux->add_option("--preset", options->preset, "Sizes of everything: flux-dev (1280 x 768) or tiny")
      ->option_text("NAME [flux-dev]");
  const auto size = [flux](const char* names, std::optional<int64_t>& value, const char* help) {
    flux->add_option(names, value, help)->option_text("INT [the preset's]");
  };
  size("-W,--width", options->width, "Pixels, a multiple of 16");
  size("-H,--height", options->height, "Pixels, a multiple of 16");
  size("--text-tokens", options->text_tokens, "Tokens of the prompt, 1 to 4096");
  size("--double-blocks", options->double_blocks, "Double blocks of the transformer");
  size("--single-blocks", options->single_blocks, "Single blocks of the transformer");
  flux->add_option("--rounds", options->rounds, "Measurements of each stage")->option_text("INT [5]");
  flux->add_option("--steps", options->steps, "Denoising steps of the whole generations; 0 leaves them out")
      ->option_text("INT [50]");
  flux->add_option("--sparsity", options->sparsities,
                   "Settings of the sparse method: preset or YAML file; may be given several times; none: dense only")
      ->option_text("NAME|FILE [flux, flux-caching]")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  flux->add_flag("--no-text", options->no_text, "Leave the text encoders out");
  flux->add_flag("--no-vae", options->no_vae, "Leave the decoder out");
  flux->add_flag("--fp8", options->fp8, "A dense step and generations with the blocks' linears in fp8, too");
  flux->add_option("--device", options->device, "Where to compute")->option_text("cpu|cuda[:i]|auto [auto]");
  flux->add_option("--threads", options->threads, "CPU threads; 0 for all cores")
      ->option_text("INT [0]")
      ->check(CLI::Range(0, kMaxThreads));
  flux->add_flag("--json", options->json, "One JSON object on stdout");
  flux->add_flag("--quiet", options->quiet, "No progress on stderr");
  flux->callback([command, options] { command->run = [options] { return run_bench_flux(*options); }; });
}

/// A benchmark of one layer's kernels at the sizes of models. fp8_help: of its flag, or null where it has none.
void add_kernel_bench(CLI::App* bench, ParsedCommand* command, const char* name, const char* help,
                      const char* presets_help, const char* fp8_help, int (*run)(const BenchKernelsOptions&)) {
  auto options = std::make_shared<BenchKernelsOptions>();
  CLI::App* kernels = bench->add_subcommand(name, help);
  kernels->add_option("--preset", options->presets, presets_help)
      ->option_text("NAME [tiny]")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  kernels->add_option("--rounds", options->rounds, "Times each kernel is measured, in turn with the others")
      ->option_text("INT [10]");
  if (fp8_help != nullptr) kernels->add_flag("--fp8", options->fp8, fp8_help);
  kernels->add_option("--device", options->device, "Where to compute")->option_text("cpu|cuda[:i]|auto [auto]");
  kernels->add_option("--threads", options->threads, "CPU threads; 0 for all cores")
      ->option_text("INT [0]")
      ->check(CLI::Range(0, kMaxThreads));
  kernels->add_flag("--json", options->json, "One JSON object on stdout");
  kernels->add_flag("--quiet", options->quiet, "No progress on stderr");
  kernels->callback([command, options, run] { command->run = [options, run] { return run(*options); }; });
}

void add_bench(CLI::App* app, ParsedCommand* command) {
  CLI::App* bench = app->add_subcommand("bench", "Check and time what generation is made of");
  bench->require_subcommand(1);
  add_kernel_bench(bench, command, "kernels", "Attention, dense and column-sparse, and the column selection",
                   "Problem size: hunyuan, mid, flux, wan or tiny; may be given several times", nullptr,
                   run_bench_kernels);
  add_kernel_bench(bench, command, "mlp", "A layer's MLP: two linears, and the full and sparse steps of the method",
                   "Problem size: flux, flux-image, hunyuan or tiny; may be given several times",
                   "Sparse steps with the first layer in fp8, too", run_bench_mlp);
  add_bench_flux(bench, command);
}

/// CLI11 says less about a missing or unknown command. Empty if the arguments from `position` on begin well.
std::string check_command(const CLI::App& app, int argc, char** argv, int position = 1) {
  const auto commands = app.get_subcommands([](const CLI::App*) { return true; });
  const bool missing = argc <= position;
  if (commands.empty() || (!missing && std::string_view(argv[position]).starts_with('-'))) return {};
  std::string known;
  for (const CLI::App* command : commands) {
    if (!missing && command->get_name() == argv[position]) return check_command(*command, argc, argv, position + 1);
    known += (known.empty() ? "" : ", ") + command->get_name();
  }
  return (missing ? "no command" : "unknown command \"" + std::string(argv[position]) + "\"") + ": expected one of " +
         known;
}

/// The command whose help a mistake should point to.
std::string help_command(const CLI::App& app) {
  for (const CLI::App* command : app.get_subcommands()) return "chipmunk " + command->get_name() + " --help";
  return "chipmunk --help";
}

int report_bad_use(const CLI::App& app, std::string message) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  print_error(message + " (see " + help_command(app) + ")");
  return kExitBadUse;
}

}  // namespace

ParsedCommand parse_command_line(int argc, char** argv) {
  ParsedCommand command;
  CLI::App app(kDescription, "chipmunk");
  app.set_version_flag("--version", "chipmunk " CHIPMUNK_VERSION);
  app.require_subcommand(1);
  app.footer("Details: chipmunk COMMAND --help");
  app.get_formatter()->column_width(36);
  add_generate(&app, &command);
  add_inspect(&app, &command);
  add_schedule(&app, &command);
  add_evaluate(&app, &command);
  add_compare(&app, &command);
  add_sparsity_command(&app, &command);
  add_bench(&app, &command);
  app.add_subcommand("version", "Show the version, how it was built and which devices there are")->callback([&command] {
    command.run = [] { return run_version(); };
  });

  if (const std::string message = check_command(app, argc, argv); !message.empty()) {
    command.exit_code = report_bad_use(app, message);
    return command;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    command.run = nullptr;
    // Help and version come as exceptions too, with code 0; exit() prints them.
    command.exit_code = error.get_exit_code() == 0 ? app.exit(error) : report_bad_use(app, error.what());
  }
  return command;
}

}  // namespace chipmunk::cli
