#include "json_output.h"

#include <charconv>
#include <nlohmann/json.hpp>

// Together with comparison_json.cpp the only file that includes the JSON library: the header costs seconds.
namespace chipmunk::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

/// The double with the shortest decimal form of the float, so that 3.1f reads 3.1 and not 3.0999999046325684.
double shortest(float value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof(text), value).ptr;
  double result = 0.0;
  std::from_chars(text, end, result);
  return result;
}

Json shape_json(const Dims& shape) {
  Json json = Json::array();
  for (const int64_t dim : shape) json.push_back(dim);
  return json;
}

const char* layout_name(ModelLayout layout) {
  switch (layout) {
    case ModelLayout::kPipelineFolder: return "pipeline folder";
    case ModelLayout::kComponentFolder: return "component folder";
    case ModelLayout::kSingleFile: return "single file";
  }
  return "?";
}

Json component_json(const ComponentDescription& component, bool with_tensors) {
  Json json = {{"name", component.name},
               {"architecture", component.architecture},
               {"path", component.path.string()},
               {"parameters", component.parameters()},
               {"bytes", component.stored_bytes()},
               {"dtypes", Json::array()},
               {"weight_files", component.weight_files},
               {"missing", component.missing},
               {"broken", component.broken}};
  for (const DTypeUsage& usage : component.dtypes) {
    json["dtypes"].push_back(
        {{"dtype", usage.dtype}, {"tensors", usage.tensors}, {"parameters", usage.parameters}, {"bytes", usage.bytes}});
  }
  if (with_tensors) {
    json["tensors"] = Json::array();
    for (const TensorDescription& tensor : component.tensors) {
      json["tensors"].push_back({{"name", tensor.name},
                                 {"dtype", tensor.dtype},
                                 {"shape", shape_json(tensor.shape)},
                                 {"bytes", tensor.bytes},
                                 {"file", tensor.file}});
    }
  }
  return json;
}

Json score_json(const ScoreRow& row) {
  const std::pair<const char*, const Fraction*> columns[] = {{"object", &row.object},
                                                             {"colour", &row.colour},
                                                             {"shape", &row.shape},
                                                             {"relation", &row.relation},
                                                             {"all_correct", &row.all_correct}};
  Json json, intervals, counts;
  for (const auto& [name, fraction] : columns) {
    json[name] = fraction->total == 0 ? Json() : Json(fraction->value());
    intervals[name] = {fraction->low(), fraction->high()};
    counts[name] = fraction->total;
  }
  json["intervals"] = intervals;
  json["counts"] = counts;
  return json;
}

}  // namespace

std::string to_json(const Score& score) {
  Json json = score_json(score.all);
  json["held_out"] = score_json(score.held_out);
  return dump(json);
}

std::string to_json(const GenerateReport& report) {
  Json json = {{"version", CHIPMUNK_VERSION},
               {"model", report.model},
               {"architecture", report.architecture},
               {"device", report.device},
               {"fp8", report.fp8},
               {"images", Json::array()},
               {"timings",
                {{"load_ms", report.load_ms}, {"upload_ms", report.weights.elapsed_ms}, {"total_ms", report.total_ms}}},
               {"upload_bytes", report.weights.total_bytes},
               {"peak_memory_bytes", report.peak_memory_bytes},
               {"peak_resident_bytes", report.peak_resident_bytes}};
  for (const PictureReport& picture : report.pictures) {
    json["images"].push_back(
        {{"path", picture.path},
         {"prompt", picture.prompt},
         {"negative_prompt", picture.negative_prompt},
         {"seed", picture.seed},
         {"width", picture.width},
         {"height", picture.height},
         {"steps", picture.steps},
         {"guidance", shortest(picture.guidance)},
         {"true_cfg_scale", shortest(picture.true_cfg_scale)},
         {"sparsity", picture.sparsity.empty() ? Json() : Json(picture.sparsity)},
         {"timings",
          {{"text_ms", picture.text_ms}, {"denoise_ms", picture.denoise_ms}, {"decode_ms", picture.decode_ms}}},
         {"peak_memory_bytes", picture.peak_memory_bytes}});
  }
  return dump(json);
}

std::string to_json(const ModelDescription& model, bool with_tensors) {
  Json json = {{"path", model.path.string()},        {"layout", layout_name(model.layout)},
               {"architecture", model.architecture}, {"complete", model.complete()},
               {"parameters", model.parameters()},   {"bytes", model.stored_bytes()},
               {"components", Json::array()}};
  for (const ComponentDescription& component : model.components) {
    json["components"].push_back(component_json(component, with_tensors));
  }
  return dump(json);
}

std::string to_json(const ScheduleReport& report) {
  Json json = {{"model", report.model},
               {"width", report.width},
               {"height", report.height},
               {"image_tokens", report.image_tokens},
               {"steps", Json::array()}};
  const bool sparse = !report.sparsity.empty();
  if (sparse) {
    json["sparsity"] = report.sparsity;
    json["text_tokens"] = report.text_tokens;
    json["share_of_dense_work"] = share_of_dense_work(report.estimates);
  }
  for (const Step& step : report.steps) {
    json["steps"].push_back(
        {{"index", step.index},
         {"sigma", shortest(step.sigma)},
         {"sigma_next", shortest(step.sigma_next)},
         {"timestep", static_cast<double>(step.sigma) * static_cast<double>(report.config.num_train_timesteps)},
         {"attention", to_string(step.attention)},
         {"mlp", to_string(step.mlp)}});
    if (!sparse) continue;
    const StepEstimate& estimate = report.estimates.at(static_cast<size_t>(step.index));
    Json& added = json["steps"].back();
    added["may_skip"] = step.may_skip;
    added["attention_kept"] = estimate.attention_kept;
    added["mlp_kept"] = estimate.mlp_kept;
    added["share_of_dense_work"] = share_of_dense_work({&estimate, 1});
  }
  return dump(json);
}

}  // namespace chipmunk::cli
