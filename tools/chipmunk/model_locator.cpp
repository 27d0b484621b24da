#include "model_locator.h"

#include <string>
#include <system_error>
#include <vector>

#include "chipmunk/error.h"

namespace chipmunk::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDefaultModel = "scenes";

/// Folders that may hold models, the best first.
std::vector<fs::path> model_folders() {
  std::vector<fs::path> folders;
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  const fs::path program_folder = error ? fs::path() : program.parent_path();
  if (!program_folder.empty()) folders.push_back(program_folder.parent_path() / "share/chipmunk/models");
  folders.push_back(CHIPMUNK_MODELS_DIR);
  // A build folder, <repository>/<build>/bin, that was moved together with its repository.
  if (!program_folder.empty()) folders.push_back(program_folder.parent_path().parent_path() / "models");
  return folders;
}

}  // namespace

fs::path find_default_model() {
  for (const fs::path& folder : model_folders()) {
    std::error_code error;
    const fs::path model = folder / kDefaultModel;
    if (fs::exists(model / "model_index.json", error)) return model;
  }
  throw Error(ErrorCode::kInvalidArgument, "no --model given, and the model that comes with Chipmunk (" +
                                               std::string(kDefaultModel) + ") is not installed: give --model DIR");
}

}  // namespace chipmunk::cli
