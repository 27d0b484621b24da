#include "bad_input.h"

// What is wrong with --sparsity and the settings that it names. None of these gets as far as the model.
namespace chipmunk::testing {
namespace {

constexpr int kError = 1, kBadUse = 2;

using Words = std::vector<std::string>;

/// A file for `generate --sparsity` with something wrong in it.
BadInput bad_file(const std::string& name, const std::string& content, std::vector<std::string> message) {
  message.push_back("{tmp}/s.yml");
  return {name, generate_with({{"--sparsity", "{tmp}/s.yml"}}), kBadUse, message,
          [content](Workbench& bench) { write_text(bench.folder() / "s.yml", content); }};
}

/// A comparison that would work, with something added to its options.
BadInput bad_comparison(const std::string& name, const Words& more, int exit_code, const Words& message,
                        const std::function<void(Workbench&)>& prepare = nullptr) {
  Words arguments = {"compare", "--quiet", "-m", "{model}", "-o", "{out}/c", "--steps", "1", "--device", "cpu"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return {name, arguments, exit_code, message, prepare};
}

}  // namespace

std::vector<BadInput> bad_sparsity() {
  return {
      {"UnknownPreset", generate_with({{"--sparsity", "flxu"}}), kBadUse, {"unknown preset \"flxu\"", "flux"}},
      {"EmptyName", generate_with({{"--sparsity", ""}}), kBadUse, {"--sparsity", "a preset or a file"}},
      {"AbsentFile", generate_with({{"--sparsity", "{tmp}/s.yml"}}), kBadUse, {"{tmp}/s.yml", "no such file"}},
      {"Folder", generate_with({{"--sparsity", "{tmp}"}}), kBadUse, {"{tmp}"}},
      {"Twice", generate_with({{"--sparsity", "demo"}}, {"--sparsity", "flux"}), kBadUse, {"--sparsity"}},
      bad_file("Empty", "", {":1: ", "expected sections"}),
      bad_file("BrokenYaml", "attn: [\n", {"not valid YAML"}),
      bad_file("UnknownKey", "attn:\n  top_key: 0.1\n", {":2: ", "attn.top_key", "attn.top_keys"}),
      bad_file("OutOfRange", "attn:\n  top_keys: 16.5\n", {":2: ", "attn.top_keys", "0 to 1", "16.5"}),
      bad_file("WrongType", "attn:\n  is_enabled: often\n", {":2: ", "true or false", "often"}),
      bad_file("KeyTwice", "mlp: {}\nmlp: {}\n", {":2: ", "twice"}),
      bad_file("Contradiction", "attn: {top_keys: 0.1}\n", {"mlp.top_keys", "is_enabled: false"}),
      bad_file("SkipsStepZero", "step_caching: {skip_step_schedule: [0]}\n", {":1: ", "skip_step_schedule"}),
      {"EvaluateUnknownPreset",
       {"evaluate", "-m", "{model}", "--sparsity", "dmeo", "-o", "{out}/e"},
       kBadUse,
       {"unknown preset \"dmeo\"", "demo"}},
      {"ScheduleUnknownPreset", {"schedule", "--sparsity", "hunyan"}, kBadUse, {"unknown preset", "hunyuan"}},
      {"ScheduleAbsentFile", {"schedule", "--sparsity", "{tmp}/s.yml"}, kBadUse, {"{tmp}/s.yml", "no such file"}},
      {"ScheduleWithoutTransformer",
       {"schedule", "-m", "{model}", "--sparsity", "demo"},
       kError,
       {"transformer/config.json", "no such file"},
       [](Workbench& bench) { std::filesystem::remove(bench.damage("transformer/config.json")); }},
      {"NoSparsityCommand", {"sparsity"}, kBadUse, {"no command", "show, check"}},
      {"UnknownSparsityCommand", {"sparsity", "chek", "x.yml"}, kBadUse, {"unknown command \"chek\"", "show, check"}},
      {"CheckWithoutFile", {"sparsity", "check"}, kBadUse, {"name"}},
      {"CheckAbsentFile", {"sparsity", "check", "{tmp}/s.yml"}, kBadUse, {"{tmp}/s.yml", "no such file"}},
      {"CheckInvalidFile",
       {"sparsity", "check", "{tmp}/s.yml"},
       kBadUse,
       {"{tmp}/s.yml:1: ", "atn", "attn"},
       [](Workbench& bench) { write_text(bench.folder() / "s.yml", "atn: {}\n"); }},
      {"ShowUnknownPreset", {"sparsity", "show", "fluxx"}, kBadUse, {"unknown preset \"fluxx\"", "flux"}},
      {"ShowTwoNames", {"sparsity", "show", "flux", "demo"}, kBadUse, {"demo"}},
  };
}

std::vector<BadInput> bad_comparisons() {
  const Words demo = {"--sparsity", "demo"};
  const auto value = [](const std::string& name, const Words& more, const Words& message) {
    Words all = {"-p", "x", "--sparsity", "demo"};
    all.insert(all.end(), more.begin(), more.end());
    return bad_comparison(name, all, kBadUse, message);
  };
  const auto suite_file = [](const std::string& content) {
    return [content](Workbench& bench) { write_text(bench.damage("suite.json"), content); };
  };
  const Words suite = {"--suite", "scenes", "--sparsity", "demo"};
  return {
      bad_comparison("NoPrompt", demo, kBadUse, {"--prompt", "--prompts", "--suite"}),
      bad_comparison("NoSparsity", {"-p", "x"}, kBadUse, {"no variant", "--sparsity", "--fp8"}),
      value("PromptAndSuite", {"--suite", "scenes"}, {"--prompt", "--suite"}),
      value("PromptAndFile", {"--prompts", "{tmp}/p.txt"}, {"--prompt", "--prompts"}),
      bad_comparison("UnknownSuite", {"--suite", "poems", "--sparsity", "demo"}, kBadUse,
                     {"--suite", "scenes", "poems"}),
      bad_comparison("SuiteAbsent", suite, kError, {"suite.json", "no such file"}),
      bad_comparison("SuiteBroken", suite, kError, {"suite.json"}, suite_file("{\"scenes\": ")),
      value("SecondVariantUnknown", {"--sparsity", "flxu"}, {"unknown preset \"flxu\"", "flux"}),
      value("SecondVariantAbsent", {"--sparsity", "{tmp}/none.yml"}, {"{tmp}/none.yml", "no such file"}),
      value("SparsityEmpty", {"--sparsity", ""}, {"--sparsity", "a preset or a file"}),
      value("StepsTwice", {"--steps", "3"}, {"--steps"}),
      value("SeedNegative", {"-s", "-1"}, {"--seed", "found -1"}),
      value("SeedTooLarge", {"-s", "9223372036854775807"}, {"--seed", "found 9223372036854775807"}),
      value("Width", {"-W", "40"}, {"width", "multiple of 16", "found 40"}),
      value("Guidance", {"--guidance", "-1"}, {"guidance", "found -1"}),
      value("LimitNegative", {"--limit", "-1"}, {"--limit", "-1"}),
      value("SkipNegative", {"--skip", "-1"}, {"--skip", "-1"}),
      value("SkipEveryPrompt", {"--skip", "1"}, {"--skip", "less than the 1 prompts", "found 1"}),
      value("Threads", {"--threads", "5000"}, {"--threads", "5000"}),
      value("Device", {"--device", "tpu"}, {"--device"}),
      value("OffloadUnknown", {"--offload", "all"}, {"--offload", "none, text or blocks", "found \"all\""}),
      value("PreviewIsNoOption", {"--preview", "vae"}, {"--preview"}),
      bad_comparison("PromptFileAbsent", {"--prompts", "{tmp}/p.txt", "--sparsity", "demo"}, kError,
                     {"{tmp}/p.txt", "no such file"}),
      bad_comparison("PromptInvalidUtf8", {"--prompts", "{tmp}/p.txt", "--sparsity", "demo"}, kError,
                     {"{tmp}/p.txt, line 2", "UTF-8"},
                     [](Workbench& bench) { write_text(bench.folder() / "p.txt", "a\n\xff\n"); }),
      {"OutputIsAFile",
       {"compare", "-m", "{model}", "-p", "x", "--sparsity", "demo", "-o", "{tmp}/file"},
       kError,
       {"{tmp}/file", "a folder"},
       [](Workbench& bench) { write_text(bench.folder() / "file", "x"); }},
      {"OutputUnwritable",
       {"compare", "-m", "{model}", "-p", "x", "--sparsity", "demo", "--quiet", "-o", "/proc/c"},
       kError,
       {"/proc/c"}},
      {"ModelAbsent",
       {"compare", "-m", "{tmp}/none", "-p", "x", "--sparsity", "demo", "--quiet", "-o", "{out}/c"},
       kError,
       {"{tmp}/none"}},
  };
}

}  // namespace chipmunk::testing
