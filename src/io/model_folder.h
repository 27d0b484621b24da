#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/dims.h"

namespace chipmunk {

/// One stored tensor.
struct TensorDescription {
  std::string name;
  std::string dtype;  ///< as the file spells it
  Dims shape;
  size_t bytes = 0;
  std::string file;  ///< name without folder
};

/// How much of a model is stored in one dtype.
struct DTypeUsage {
  std::string dtype;
  int64_t tensors = 0;
  int64_t parameters = 0;
  size_t bytes = 0;
};

enum class ComponentKind { kModel, kTokenizer, kScheduler, kOther };

/// One part of a pipeline: a network with weights, a tokenizer, a scheduler.
struct ComponentDescription {
  std::string name;  ///< e.g. "text_encoder_2"; empty if the path itself is the component
  ComponentKind kind = ComponentKind::kModel;
  std::string library;       ///< "diffusers" or "transformers", where the pipeline says so
  std::string architecture;  ///< class name such as "FluxTransformer2DModel"; empty if unknown
  std::filesystem::path path;
  std::vector<std::string> files;  ///< what its folder holds, sorted, names alone
  std::vector<std::string> weight_files;
  std::vector<TensorDescription> tensors;
  std::vector<DTypeUsage> dtypes;    ///< sorted by dtype
  std::vector<std::string> missing;  ///< files or folders that are needed and absent
  std::vector<std::string> broken;   ///< what is there but cannot be used, with the reason

  int64_t parameters() const;
  size_t stored_bytes() const;
};

enum class ModelLayout {
  kPipelineFolder,   ///< a diffusers folder with model_index.json
  kComponentFolder,  ///< one network: config.json and weights
  kSingleFile,       ///< one safetensors file
};

/// What a path holds, as far as file names, configs and weight headers tell; no weight is read.
struct ModelDescription {
  ModelLayout layout = ModelLayout::kSingleFile;
  std::filesystem::path path;
  std::string architecture;  ///< the pipeline's class, or the only component's architecture
  std::vector<ComponentDescription> components;

  /// Nothing missing, nothing broken.
  bool complete() const;
  int64_t parameters() const;
  size_t stored_bytes() const;
  /// nullptr if there is none of that name.
  const ComponentDescription* find(const std::string& name) const;
};

/// Defects of single components are described, not thrown. Throws kNotFound if the path does not exist or is a folder
/// that holds no model; kInvalidFile or kInvalidConfig if model_index.json, or the single file, cannot be read.
ModelDescription describe_model(const std::filesystem::path& path);

}  // namespace chipmunk
