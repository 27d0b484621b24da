#pragma once

#include <string>

namespace chipmunk::cli {

/// What was asked for one picture.
struct PictureSettings {
  std::string prompt, negative_prompt;
  int width = 0, height = 0;
  int steps = 0;
  float guidance = 0.0f;  ///< written where the model has it
  bool has_guidance = false;
  float true_cfg_scale = 1.0f;
  long long seed = 0;
  std::string model;     ///< its name, without folders
  std::string sparsity;  ///< preset or file, without folders; empty for dense
  bool fp8 = false;      ///< linears of the transformer's blocks in f8_e4m3
};

/// The text under a PNG's "parameters" key in the form that image tools share: the prompt, a line "Negative prompt: "
/// if there is one, and a line of "Name: value" pairs.
std::string format_parameters(const PictureSettings& settings);

}  // namespace chipmunk::cli
