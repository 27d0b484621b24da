#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace chipmunk::testing {

using Json = nlohmann::json;

/// A temporary folder with an empty output folder and, on demand, a copy of the small random model to damage.
class Workbench {
 public:
  Workbench();
  ~Workbench();
  Workbench(const Workbench&) = delete;
  Workbench& operator=(const Workbench&) = delete;

  const std::filesystem::path& folder() const { return folder_; }
  /// Where commands write; empty at first.
  std::filesystem::path output() const { return folder_ / "out"; }
  /// The undamaged model in place, or its copy once there is one.
  std::filesystem::path model() const { return model_; }
  /// A file or folder of the model's copy, made on the first call.
  std::filesystem::path damage(const std::string& relative);

  /// Replaces {model}, {out}, {tmp} and {data} in each argument.
  std::vector<std::string> expand(std::vector<std::string> arguments) const;
  /// Names of what lies in the output folder, hidden files included, sorted.
  std::vector<std::string> output_names() const;

 private:
  std::filesystem::path folder_, model_;
};

void write_text(const std::filesystem::path& path, const std::string& text);
std::string read_text(const std::filesystem::path& path);
void edit_json(const std::filesystem::path& path, const std::function<void(Json&)>& edit);
/// Changes the header of a safetensors file; the data stays.
void edit_header(const std::filesystem::path& path, const std::function<void(Json&)>& edit);
/// Replaces the header's text, whose length is told as `length` (its own if 0).
void replace_header(const std::filesystem::path& path, const std::string& text, uint64_t length = 0);

}  // namespace chipmunk::testing
