#include "io/model_folder.h"

#include <algorithm>
#include <map>
#include <memory>
#include <system_error>
#include <utility>

#include "chipmunk/error.h"
#include "io/config.h"
#include "io/safetensors.h"
#include "io/weight_map.h"

namespace chipmunk {
namespace {

namespace fs = std::filesystem;

bool is_file(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

bool is_folder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

std::vector<std::string> list_files(const fs::path& folder) {
  std::error_code error;
  std::vector<std::string> names;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    if (is_file(entry->path())) names.push_back(entry->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool contains_text(const std::string& text, const char* part) { return text.find(part) != text.npos; }

ComponentKind classify(const std::string& architecture) {
  if (contains_text(architecture, "Tokenizer")) return ComponentKind::kTokenizer;
  if (contains_text(architecture, "Scheduler")) return ComponentKind::kScheduler;
  if (contains_text(architecture, "FeatureExtractor") || contains_text(architecture, "Processor")) {
    return ComponentKind::kOther;
  }
  return ComponentKind::kModel;
}

/// A tensor name that only one architecture has, for files that carry no config.
struct Signature {
  const char* tensor;
  const char* architecture;
};

constexpr Signature kSignatures[] = {
    {"double_blocks.0.img_attn.qkv.weight", "FLUX transformer (original layout)"},
    {"model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "FLUX transformer (original layout)"},
    {"single_transformer_blocks.0.proj_mlp.weight", "FluxTransformer2DModel"},
    {"decoder.up.0.block.0.conv1.weight", "AutoencoderKL (original layout)"},
    {"decoder.up_blocks.0.resnets.0.conv1.weight", "AutoencoderKL"},
    {"text_model.encoder.layers.0.self_attn.q_proj.weight", "CLIPTextModel"},
    {"encoder.block.0.layer.0.SelfAttention.q.weight", "T5EncoderModel"},
};

std::string recognise(const SafetensorsFile& file) {
  for (const Signature& signature : kSignatures) {
    if (file.contains(signature.tensor)) return signature.architecture;
  }
  const auto declared = file.metadata().find("modelspec.architecture");
  return declared == file.metadata().end() ? std::string() : declared->second;
}

void add_tensors(ComponentDescription* component, const SafetensorsFile& file) {
  const std::string file_name = file.path().filename().string();
  for (const auto& [name, entry] : file.entries()) {
    component->tensors.push_back({name, entry.dtype_name, entry.shape, entry.bytes, file_name});
  }
}

void summarise_dtypes(ComponentDescription* component) {
  std::map<std::string, DTypeUsage> by_name;
  for (const TensorDescription& tensor : component->tensors) {
    DTypeUsage& usage = by_name[tensor.dtype];
    usage.dtype = tensor.dtype;
    usage.tensors += 1;
    usage.parameters += numel(tensor.shape);
    usage.bytes += tensor.bytes;
  }
  for (auto& [name, usage] : by_name) component->dtypes.push_back(std::move(usage));
}

/// Runs `read` and files what it throws under the component's missing or broken parts.
template <typename Read>
void record_errors(ComponentDescription* component, const std::string& missing, Read read) {
  try {
    read();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kNotFound) {
      component->missing.push_back(missing);
    } else {
      component->broken.push_back(error.what());
    }
  }
}

void describe_weights(ComponentDescription* component) {
  record_errors(component, "weights (*.safetensors)", [component] {
    const WeightFiles found = find_weight_files(component->path);
    for (const fs::path& shard : found.shards) {
      component->weight_files.push_back(shard.filename().string());
      record_errors(component, shard.filename().string(), [&] { add_tensors(component, SafetensorsFile(shard)); });
    }
    // What only shows when the files are taken together: an index that does not match, a weight in two shards.
    if (component->missing.empty() && component->broken.empty()) WeightMap::open(component->path);
  });
  summarise_dtypes(component);
}

/// The class that a network's config names: diffusers writes _class_name, transformers a list of architectures.
std::string declared_architecture(const JsonConfig& config) {
  if (config.is_string("_class_name")) return config.string("_class_name");
  if (!config.is_list("architectures")) return {};
  const std::vector<std::string> names = config.strings("architectures");
  return names.empty() ? std::string() : names.front();
}

void describe_network(ComponentDescription* component) {
  record_errors(component, "config.json", [component] {
    const std::string declared = declared_architecture(JsonConfig::load(component->path / "config.json"));
    if (component->architecture.empty()) component->architecture = declared;
  });
  describe_weights(component);
}

void describe_tokenizer(ComponentDescription* component) {
  const auto has = [component](const char* file) { return is_file(component->path / file); };
  const auto need = [&](const char* file) {
    if (!has(file)) component->missing.push_back(file);
  };
  need("tokenizer_config.json");
  if (has("tokenizer.json")) return;
  const std::string& architecture = component->architecture;
  if (contains_text(architecture, "CLIP")) {
    need("vocab.json");
    need("merges.txt");
  } else if (contains_text(architecture, "T5")) {
    if (!has("spiece.model")) component->missing.push_back("spiece.model or tokenizer.json");
  } else {
    component->missing.push_back("tokenizer.json");
  }
}

void describe_component(ComponentDescription* component) {
  if (!is_folder(component->path)) {
    component->missing.push_back("the folder " + component->path.filename().string());
    return;
  }
  component->files = list_files(component->path);
  switch (component->kind) {
    case ComponentKind::kModel: describe_network(component); break;
    case ComponentKind::kTokenizer: describe_tokenizer(component); break;
    case ComponentKind::kScheduler:
      record_errors(component, "scheduler_config.json",
                    [component] { JsonConfig::load(component->path / "scheduler_config.json"); });
      break;
    case ComponentKind::kOther: break;
  }
}

/// The components of model_index.json: entries of the form name: [library, class]. Others are settings, and
/// [null, null] stands for a part that this pipeline goes without.
ModelDescription describe_pipeline(const fs::path& path) {
  const JsonConfig index = JsonConfig::load(path / "model_index.json");
  ModelDescription model{ModelLayout::kPipelineFolder, path, index.string("_class_name"), {}};
  for (const std::string& name : index.keys()) {
    if (name.empty() || name.front() == '_' || !index.is_string_list(name)) continue;
    const std::vector<std::string> names = index.strings(name);
    if (names.size() != 2) continue;
    ComponentDescription component;
    component.name = name;
    component.library = names[0];
    component.architecture = names[1];
    component.kind = classify(names[1]);
    component.path = path / name;
    if (contains_text(name, "/") || name == "..") {
      component.broken.push_back("the name is not that of a folder");
    } else {
      describe_component(&component);
    }
    model.components.push_back(std::move(component));
  }
  return model;
}

ModelDescription describe_folder(const fs::path& path) {
  if (is_file(path / "model_index.json")) return describe_pipeline(path);
  ComponentDescription component;
  component.path = path;
  describe_component(&component);
  const bool has_config = is_file(path / "config.json");
  if (!has_config && component.weight_files.empty()) {
    throw Error(ErrorCode::kNotFound, "no model here: expected model_index.json, or config.json and weights",
                path.string());
  }
  return {ModelLayout::kComponentFolder, path, component.architecture, {component}};
}

ModelDescription describe_file(const fs::path& path) {
  const SafetensorsFile file(path);
  ComponentDescription component;
  component.path = path;
  component.architecture = recognise(file);
  component.files = {path.filename().string()};
  component.weight_files = component.files;
  add_tensors(&component, file);
  summarise_dtypes(&component);
  return {ModelLayout::kSingleFile, path, component.architecture, {component}};
}

}  // namespace

int64_t ComponentDescription::parameters() const {
  int64_t total = 0;
  for (const DTypeUsage& usage : dtypes) total += usage.parameters;
  return total;
}

size_t ComponentDescription::stored_bytes() const {
  size_t total = 0;
  for (const DTypeUsage& usage : dtypes) total += usage.bytes;
  return total;
}

bool ModelDescription::complete() const {
  return std::all_of(components.begin(), components.end(),
                     [](const auto& component) { return component.missing.empty() && component.broken.empty(); });
}

int64_t ModelDescription::parameters() const {
  int64_t total = 0;
  for (const ComponentDescription& component : components) total += component.parameters();
  return total;
}

size_t ModelDescription::stored_bytes() const {
  size_t total = 0;
  for (const ComponentDescription& component : components) total += component.stored_bytes();
  return total;
}

const ComponentDescription* ModelDescription::find(const std::string& name) const {
  for (const ComponentDescription& component : components) {
    if (component.name == name) return &component;
  }
  return nullptr;
}

ModelDescription describe_model(const fs::path& path) {
  return is_folder(path) ? describe_folder(path) : describe_file(path);
}

}  // namespace chipmunk
