#include "bad_input.h"

// What is wrong with --sparsity and the settings that it names. None of these gets as far as the model.
namespace chipmunk::testing {
namespace {

constexpr int kBadUse = 2;

/// A file for `generate --sparsity` with something wrong in it.
BadInput bad_file(const std::string& name, const std::string& content, std::vector<std::string> message) {
  message.push_back("{tmp}/s.yml");
  return {name, generate_with({{"--sparsity", "{tmp}/s.yml"}}), kBadUse, message,
          [content](Workbench& bench) { write_text(bench.folder() / "s.yml", content); }};
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
       1,
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

}  // namespace chipmunk::testing
