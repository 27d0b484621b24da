#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/config.h"
#include "io/safetensors.h"

namespace chipmunk::conformance {

/// What one expected tensor must be, and how closely.
struct Expectation {
  Tensor value;  // f32, i32 or u8, host
  double atol = 0.0, rtol = 0.0;
};

/// A folder with case.json, inputs.safetensors, expected.safetensors and the model that they are about. A case may
/// refer to another one's inputs and expected values ("params.inputs_and_expected": "<folder> (<prefix>*, ...)").
class CaseFolder {
 public:
  /// Throws Error for folders of another form.
  static CaseFolder open(const std::filesystem::path& path);

  const std::string& name() const { return name_; }
  /// Where the model lies: case.json's "model", else the folder model/.
  const std::filesystem::path& model() const { return model_; }
  const JsonConfig& params() const { return params_; }
  /// The texts of prompts.json, if there are any.
  const std::vector<std::string>& prompts() const { return prompts_; }
  const std::map<std::string, Expectation>& expected() const { return expected_; }

  bool has_input(const std::string& name) const { return inputs_->contains(name); }
  Tensor input(const std::string& name) const { return inputs_->tensor(name); }
  /// The shape of an expected tensor; throws kNotFound.
  const Dims& expected_shape(const std::string& name) const;

 private:
  CaseFolder(JsonConfig params) : params_(std::move(params)) {}

  std::string name_;
  std::filesystem::path model_;
  JsonConfig params_;
  std::vector<std::string> prompts_;
  std::shared_ptr<SafetensorsFile> inputs_;
  std::map<std::string, Expectation> expected_;
};

}  // namespace chipmunk::conformance
