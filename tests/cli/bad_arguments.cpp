#include "bad_input.h"

// What is wrong on the command line itself, in places to write to, and in prompts.
namespace chipmunk::testing {
namespace {

namespace fs = std::filesystem;

constexpr int kError = 1, kBadUse = 2;

}  // namespace

std::vector<BadInput> bad_usage() {
  return {
      {"NoCommand", {}, kBadUse, {"no command", "generate, inspect, schedule"}},
      {"UnknownCommand", {"paint"}, kBadUse, {"unknown command \"paint\"", "generate"}},
      {"UnknownFlag", generate_with({}, {"--sampler-magic"}), kBadUse, {"--sampler-magic", "generate --help"}},
      {"UnknownGlobalFlag", {"--verbose", "version"}, kBadUse, {"--verbose"}},
      {"ExtraArgument", generate_with({}, {"something"}), kBadUse, {"something"}},
      {"MissingValue", generate_with({}, {"--negative-prompt"}), kBadUse, {"--negative-prompt", "missing"}},
      {"OptionTwice", generate_with({}, {"--steps", "2"}), kBadUse, {"--steps"}},
      {"NoPrompt", {"generate", "--model", "{model}", "-o", "{out}/a.png"}, kBadUse, {"--prompt", "--prompts"}},
      {"PromptAndPromptFile", generate_with({{"--prompts", "{tmp}/p.txt"}}), kBadUse, {"--prompt", "--prompts"}},
      {"TilingBothWays", generate_with({}, {"--vae-tiling", "--no-vae-tiling"}), kBadUse, {"--no-vae-tiling"}},
      {"EvaluateUnknownOffload",
       {"evaluate", "--offload", "all"},
       kBadUse,
       {"--offload", "none, text or blocks", "all"}},
      {"UnknownPreview", generate_with({{"--preview", "full"}}), kBadUse, {"none, proj or vae", "full"}},
      {"UnknownDevice", generate_with({{"--device", "tpu"}}), kBadUse, {"--device", "cpu, cuda", "tpu"}},
      {"DeviceIndexIsNoNumber", generate_with({{"--device", "cuda:x"}}), kBadUse, {"cuda:<index>", "cuda:x"}},
      // No machine has a 99th device; a build without CUDA has none at all.
      {"AbsentCudaDevice", generate_with({{"--device", "cuda:99"}}), kError, {"CUDA"}},
      {"InspectWithoutPath", {"inspect"}, kBadUse, {"path"}},
      {"InspectUnknownFlag", {"inspect", "{model}", "--weights"}, kBadUse, {"--weights"}},
      {"InspectAbsentPath", {"inspect", "{tmp}/none"}, kError, {"{tmp}/none", "No such file or directory"}},
      {"InspectFolderWithoutModel", {"inspect", "{out}"}, kError, {"{out}", "no model here"}},
      {"ScheduleZeroSteps", {"schedule", "--steps", "0"}, kBadUse, {"steps", "1 to 1000", "found 0"}},
      {"ScheduleWidth", {"schedule", "-W", "100"}, kBadUse, {"width", "multiple of 16", "100"}},
      {"ScheduleAbsentModel", {"schedule", "-m", "{tmp}/none"}, kError, {"{tmp}/none", "no such file"}},
  };
}

std::vector<BadInput> bad_values() {
  const auto value = [](const std::string& name, const std::string& option, const std::string& text,
                        const std::vector<std::string>& message) {
    return BadInput{name, generate_with({{option, text}}), kBadUse, message};
  };
  return {
      value("WidthNotAMultipleOf16", "--width", "40", {"width", "multiple of 16", "found 40"}),
      value("HeightNotAMultipleOf16", "--height", "33", {"height", "multiple of 16", "found 33"}),
      value("WidthNegative", "--width", "-32", {"width", "found -32"}),
      value("HeightHuge", "--height", "1600000", {"height", "16384", "found 1600000"}),
      value("WidthBeyondIntegers", "--width", "80000000000", {"--width", "80000000000"}),
      value("WidthIsNoNumber", "--width", "wide", {"--width", "wide"}),
      value("WidthIsAFraction", "--width", "32.5", {"--width", "32.5"}),
      value("ZeroSteps", "--steps", "0", {"steps", "1 to 1000", "found 0"}),
      value("NegativeSteps", "--steps", "-4", {"steps", "1 to 1000", "found -4"}),
      value("TooManySteps", "--steps", "1000001", {"steps", "1 to 1000", "found 1000001"}),
      value("GuidanceNan", "--guidance", "nan", {"guidance", "found nan"}),
      value("GuidanceInfinite", "--guidance", "inf", {"guidance", "found inf"}),
      value("GuidanceNegative", "--guidance-scale", "-1", {"guidance", "found -1"}),
      value("TrueCfgScaleNegative", "--true-cfg-scale", "-0.5", {"true-cfg-scale", "found -0.5"}),
      value("TrueCfgScaleBelowOne", "--true-cfg-scale", "0.5", {"true-cfg-scale", "1 to", "found 0.5"}),
      value("BatchZero", "--batch-count", "0", {"--batch-count", "1 to 64", "0"}),
      value("BatchHuge", "--batch-count", "2000000000", {"--batch-count", "1 to 64", "2000000000"}),
      value("ThreadsNegative", "--threads", "-1", {"--threads", "-1"}),
      value("ThreadsHuge", "--threads", "1000000", {"--threads", "1000000"}),
      value("SeedIsNoNumber", "--seed", "lucky", {"--seed", "lucky"}),
      value("SeedBelowMinusOne", "--seed", "-2", {"seed", "found -2"}),
      value("SeedTooLarge", "--seed", "9223372036854775807", {"seed", "found 9223372036854775807"}),
      value("SeedBeyondIntegers", "--seed", "99999999999999999999", {"--seed", "99999999999999999999"}),
      value("SequenceLengthZero", "--max-sequence-length", "0", {"max-sequence-length", "1 to 512", "found 0"}),
      value("SequenceLengthTooLarge", "--max-sequence-length", "513", {"max-sequence-length", "found 513"}),
      value("PreviewIntervalZero", "--preview-interval", "0", {"preview-interval", "found 0"}),
      value("OffloadUnknown", "--offload", "all", {"--offload", "none, text or blocks", "found \"all\""}),
      value("OffloadEmpty", "--offload", "", {"--offload", "none, text or blocks"}),
      value("OffloadCapital", "--offload", "Text", {"--offload", "none, text or blocks", "Text"}),
      value("OffloadTwoNames", "--offload", "text,blocks", {"--offload", "none, text or blocks", "text,blocks"}),
      value("ModelEmpty", "--model", "", {"--model", "expected a path"}),
  };
}

std::vector<BadInput> bad_places() {
  const std::string picture = "{out}/picture.png";
  ProgramOptions small_files;
  small_files.file_size_limit = 512;
  return {
      {"OutputFolderAbsent",
       generate_with({{"--output", "{out}/none/a.png"}}),
       kError,
       {"{out}/none/a.png", "No such file or directory"}},
      {"OutputFolderAbsentWithSlash",
       generate_with({{"--output", "{out}/none/"}}),
       kError,
       {"{out}/none/image_000.png", "No such file or directory"}},
      // Nobody, root included, creates files there.
      {"OutputFolderUnwritable", generate_with({{"--output", "/proc/a.png"}}), kError, {"/proc/a.png"}},
      {"OutputFolderIsAFile",
       generate_with({{"--output", "{tmp}/file/a.png"}}),
       kError,
       {"{tmp}/file/a.png", "Not a directory"},
       [](Workbench& bench) { write_text(bench.folder() / "file", "x"); }},
      {"OneOfSeveralOutputsIsAFolder",
       generate_with({{"--output", "{tmp}/a.png"}, {"--batch-count", "2"}}),
       kError,
       {"{tmp}/a_001.png", "Is a directory"},
       [](Workbench& bench) { fs::create_directory(bench.folder() / "a_001.png"); }},
      {"OutputExtensionUnknown",
       generate_with({{"--output", "{out}/picture.bmp"}}),
       kBadUse,
       {"--output", ".png", "picture.bmp"}},
      {"OutputWithoutExtension", generate_with({{"--output", "{out}/picture"}}), kBadUse, {"--output", ".png"}},
      {"OutputEmpty", generate_with({{"--output", ""}}), kBadUse, {"--output"}},
      {"OutputNameTooLong",
       generate_with({{"--output", "{out}/" + std::string(300, 'a') + ".png"}}),
       kError,
       {"File name too long"}},
      {"FileSizeLimit", generate_with({}), kError, {picture, "File too large"}, {}, small_files},
      {"DiskFull",
       generate_with({{"--output", "{tmp}/full.png"}}),
       kError,
       {"{tmp}/full.png", "No space left on device"},
       [](Workbench& bench) { fs::create_symlink("/dev/full", bench.folder() / "full.png"); }},
      {"PreviewFolderAbsent",
       generate_with({{"--preview", "proj"}, {"--preview-path", "{out}/none/p.png"}}),
       kError,
       {"{out}/none/p.png", "No such file or directory"}},
      {"PreviewExtensionUnknown",
       generate_with({{"--preview", "vae"}, {"--preview-path", "{out}/p.gif"}}),
       kBadUse,
       {"--preview-path", ".png", "p.gif"}},
      {"PreviewDiskFull",
       generate_with({{"--preview", "proj"}, {"--preview-path", "{tmp}/full.png"}}),
       kError,
       {"{tmp}/full.png", "No space left on device"},
       [](Workbench& bench) { fs::create_symlink("/dev/full", bench.folder() / "full.png"); }},
  };
}

std::vector<BadInput> bad_text() {
  const std::string not_utf8 = "a \xff cat";
  const auto prompts_file = [](const std::string& content) {
    return [content](Workbench& bench) { write_text(bench.folder() / "prompts.txt", content); };
  };
  const std::vector<std::string> from_file = {"generate", "--quiet", "-m", "{model}", "-o",        "{out}/a.png",
                                              "-W",       "32",      "-H", "32",      "--steps",   "1",
                                              "--device", "cpu",     "-s", "1",       "--prompts", "{tmp}/prompts.txt"};
  return {
      {"PromptInvalidUtf8", generate_with({{"--prompt", not_utf8}}), kError, {"UTF-8", "offset 2"}},
      {"PromptOverlongUtf8", generate_with({{"--prompt", "\xc0\xaf"}}), kError, {"UTF-8"}},
      {"PromptSurrogateUtf8", generate_with({{"--prompt", "\xed\xa0\x80"}}), kError, {"UTF-8"}},
      {"PromptCutOffUtf8", generate_with({{"--prompt", "caf\xc3"}}), kError, {"UTF-8"}},
      {"NegativePromptInvalidUtf8",
       generate_with({{"--negative-prompt", not_utf8}, {"--true-cfg-scale", "2"}}),
       kError,
       {"UTF-8"}},
      {"PromptFileAbsent", from_file, kError, {"{tmp}/prompts.txt", "no such file"}},
      {"PromptFileIsAFolder",
       from_file,
       kError,
       {"{tmp}/prompts.txt", "folder"},
       [](Workbench& bench) { fs::create_directory(bench.folder() / "prompts.txt"); }},
      {"PromptFileEmpty", from_file, kError, {"{tmp}/prompts.txt", "at least one"}, prompts_file("")},
      {"PromptFileWithCommentsAlone",
       from_file,
       kError,
       {"{tmp}/prompts.txt", "at least one"},
       prompts_file("# nothing\n\n   \n#\n")},
      {"PromptFileInvalidUtf8",
       from_file,
       kError,
       {"{tmp}/prompts.txt, line 3", "UTF-8"},
       prompts_file("# good\na cat\n" + not_utf8 + "\n")},
      {"PromptFileWithNul",
       from_file,
       kError,
       {"{tmp}/prompts.txt, line 2", "NUL"},
       prompts_file("a cat\na" + std::string(1, '\0') + "dog\n")},
  };
}

}  // namespace chipmunk::testing
