#include "sparsity_command.h"

#include <fmt/format.h>

#include <string>
#include <vector>

#include "chipmunk/error.h"
#include "commands.h"
#include "console.h"

namespace chipmunk::cli {
namespace {

SparsityConfig load_with_notices(const std::string& name_or_path) {
  std::vector<std::string> notices;
  const SparsityConfig config = load_sparsity(name_or_path, &notices);
  for (const std::string& notice : notices) print_notice(notice);
  return config;
}

}  // namespace

SparsityConfig load_sparsity(const std::string& name_or_path, std::vector<std::string>* notices) {
  if (name_or_path.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "--sparsity: expected a preset or a file, found an empty name");
  }
  try {
    return SparsityConfig::load_or_preset(name_or_path, notices);
  } catch (const Error& error) {
    throw Error(ErrorCode::kInvalidArgument, error.what());
  }
}

int run_sparsity_show(const std::string& name_or_path) {
  std::string text;
  if (name_or_path.empty()) {
    for (const std::string& name : SparsityConfig::preset_names()) text += name + "\n";
  } else {
    text = load_with_notices(name_or_path).to_yaml();
  }
  print_result(text);
  return kExitOk;
}

int run_sparsity_check(const std::string& name_or_path) {
  load_with_notices(name_or_path);
  print_result(fmt::format("{}: valid\n", name_or_path));
  return kExitOk;
}

}  // namespace chipmunk::cli
