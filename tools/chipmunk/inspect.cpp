#include <fmt/format.h>

#include <string>

#include "commands.h"
#include "console.h"
#include "core/memory_text.h"
#include "inspect_device.h"
#include "io/model_folder.h"
#include "json_output.h"

namespace chipmunk::cli {
namespace {

std::string format_count(int64_t count) {
  if (count >= 1'000'000'000) return fmt::format("{:.2f} G", static_cast<double>(count) / 1e9);
  if (count >= 1'000'000) return fmt::format("{:.2f} M", static_cast<double>(count) / 1e6);
  if (count >= 1'000) return fmt::format("{:.1f} k", static_cast<double>(count) / 1e3);
  return fmt::format("{}", count);
}

std::string format_shape(const Dims& shape) {
  std::string text;
  for (const int64_t dim : shape) text += (text.empty() ? "" : ", ") + std::to_string(dim);
  return "[" + text + "]";
}

const char* kind_name(ComponentKind kind) {
  switch (kind) {
    case ComponentKind::kModel: return "model";
    case ComponentKind::kTokenizer: return "tokenizer";
    case ComponentKind::kScheduler: return "scheduler";
    case ComponentKind::kOther: return "other";
  }
  return "?";
}

std::string describe(const ComponentDescription& component, bool with_tensors) {
  std::string text = fmt::format("  {:<16} {:<32}", component.name.empty() ? kind_name(component.kind) : component.name,
                                 component.architecture.empty() ? "unknown" : component.architecture);
  if (component.kind == ComponentKind::kModel) {
    text += fmt::format(" {:>9} parameters {:>11} in {} file{}", format_count(component.parameters()),
                        format_bytes(component.stored_bytes()), component.weight_files.size(),
                        component.weight_files.size() == 1 ? "" : "s");
    for (const DTypeUsage& usage : component.dtypes) text += fmt::format(", {} x {}", usage.tensors, usage.dtype);
  }
  text += "\n";
  for (const std::string& item : component.missing) text += "    missing: " + item + "\n";
  for (const std::string& item : component.broken) text += "    broken: " + item + "\n";
  if (!with_tensors) return text;
  for (const TensorDescription& tensor : component.tensors) {
    text += fmt::format("    {:<72} {:<8} {}\n", tensor.name, tensor.dtype, format_shape(tensor.shape));
  }
  return text;
}

std::string describe(const ModelDescription& model, bool with_tensors) {
  std::string text = fmt::format("{}: {}, {} parameters, {}\n", model.path.string(),
                                 model.architecture.empty() ? "unknown architecture" : model.architecture,
                                 format_count(model.parameters()), format_bytes(model.stored_bytes()));
  for (const ComponentDescription& component : model.components) text += describe(component, with_tensors);
  return text;
}

/// The defects in one line: "text_encoder: missing config.json; vae: ...".
std::string list_defects(const ModelDescription& model) {
  std::string text;
  const auto append = [&text](const ComponentDescription& component, const char* kind, const std::string& item) {
    if (!text.empty()) text += "; ";
    text +=
        component.name.empty() ? fmt::format("{}{}", kind, item) : fmt::format("{}: {}{}", component.name, kind, item);
  };
  for (const ComponentDescription& component : model.components) {
    for (const std::string& item : component.missing) append(component, "missing ", item);
    for (const std::string& item : component.broken) append(component, "", item);
  }
  return text;
}

}  // namespace

int run_inspect(const InspectOptions& options) {
  if (options.device) return run_inspect_device(options.json);
  const ModelDescription model = describe_model(options.path);
  print_result(options.json ? to_json(model, options.tensors) : describe(model, options.tensors));
  if (model.complete()) return kExitOk;
  print_error(options.path.string() + ": not usable: " + list_defects(model));
  return kExitError;
}

}  // namespace chipmunk::cli
