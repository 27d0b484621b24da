#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>

#include "comparison_report.h"
#include "json_output.h"

namespace chipmunk::cli {
namespace {

using Json = nlohmann::ordered_json;

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(); }

Json numbers(const std::vector<double>& values) {
  Json json = Json::array();
  for (const double value : values) json.push_back(number(value));
  return json;
}

Json layers_json(const RecordStatistics& records) {
  using LayerStep = RecordStatistics::LayerStep;
  Json json = Json::array();
  for (size_t layer = 0; layer < records.num_layers(); ++layer) {
    const auto over_steps = [&](Mean LayerStep::* member) {
      Json values = Json::array();
      for (const auto& step : records.steps()) values.push_back(number((step.layers[layer].*member).value()));
      return values;
    };
    json.push_back({{"index", layer},
                    {"attention_kept", over_steps(&LayerStep::attention_kept)},
                    {"mlp_kept", over_steps(&LayerStep::mlp_kept)},
                    {"attention_mass", numbers(records.attention_mass(layer))},
                    {"attention_change", over_steps(&LayerStep::attention_change)}});
  }
  return json;
}

/// latent_error: after each step; empty for the dense run.
Json steps_json(const RecordStatistics& records, const std::vector<double>& latent_error) {
  Json json = Json::array();
  for (size_t i = 0; i < std::max(records.steps().size(), latent_error.size()); ++i) {
    Json step = {{"index", i}};
    if (i < records.steps().size()) {
      const RecordStatistics::StepSummary& from = records.steps()[i];
      step["sigma"] = number(from.sigma);
      step["attention"] = from.attention;
      step["mlp"] = from.mlp;
      step["skipped"] = from.skipped;
      step["movement"] = number(from.movement.value());
      step["multiply_adds"] = number(from.multiply_adds.value());
      step["dense_multiply_adds"] = number(from.dense_multiply_adds.value());
      step["attention_kept"] = number(from.attention_kept());
      step["mlp_kept"] = number(from.mlp_kept());
    }
    if (i < latent_error.size()) step["latent_error"] = number(latent_error[i]);
    json.push_back(std::move(step));
  }
  return json;
}

Json picture_json(const ComparedPicture& picture) {
  Json json = {{"denoise_ms", number(picture.denoise_ms)}};
  if (!picture.file.empty()) json["file"] = picture.file;
  if (picture.all_correct) json["all_correct"] = *picture.all_correct;
  return json;
}

Json score_json(const Comparison& comparison, const Score& score) {
  return comparison.suite.empty() ? Json() : Json::parse(to_json(score));
}

Json dense_json(const Comparison& comparison) {
  const ComparedRun& run = comparison.dense;
  Json json = {{"denoise_ms", number(run.denoise_ms())},
               {"scenes", score_json(comparison, run.score)},
               {"pictures", Json::array()},
               {"steps", steps_json(run.records, {})},
               {"layers", layers_json(run.records)}};
  for (const ComparedPicture& picture : run.pictures) json["pictures"].push_back(picture_json(picture));
  return json;
}

Json variant_json(const Comparison& comparison, const Variant& variant) {
  const ComparedRun& run = variant.run;
  const Summary psnr = summarise_psnr(run), ssim = summarise_ssim(run);
  const double dense_ms = comparison.dense.denoise_ms();
  Json json = {{"name", variant.name},
               {"source", variant.source},
               {"settings", variant.settings},
               {"psnr",
                {{"mean", number(psnr.mean)},
                 {"min", number(psnr.min)},
                 {"std", number(psnr.deviation)},
                 {"equal_pictures", psnr.infinite}}},
               {"ssim", {{"mean", number(ssim.mean)}, {"min", number(ssim.min)}}},
               {"scenes", score_json(comparison, run.score)},
               {"share_of_dense_work", number(run.records.share_of_dense_work())},
               {"attention_kept", number(run.records.attention_kept())},
               {"mlp_kept", number(run.records.mlp_kept())},
               {"dense_denoise_ms", number(dense_ms)},
               {"denoise_ms", number(run.denoise_ms())},
               {"speedup", number(dense_ms / run.denoise_ms())},
               {"pictures", Json::array()},
               {"steps", steps_json(run.records, variant.latent_error())},
               {"layers", layers_json(run.records)}};
  for (size_t i = 0; i < run.pictures.size(); ++i) {
    const ComparedPicture& picture = run.pictures[i];
    Json entry = picture_json(picture);
    if (!picture.side_by_side.empty()) entry["side_by_side"] = picture.side_by_side;
    entry["dense_denoise_ms"] = number(comparison.dense.pictures[i].denoise_ms);
    entry["psnr"] = number(picture.psnr);
    entry["ssim"] = number(picture.ssim);
    entry["latent_error"] = numbers(picture.latent_error);
    entry["skipped_steps"] = picture.skipped_steps;
    entry["movement"] = numbers(picture.movement);
    json["pictures"].push_back(std::move(entry));
  }
  return json;
}

}  // namespace

std::string to_json(const Comparison& comparison) {
  Json json = {{"version", CHIPMUNK_VERSION},
               {"model", comparison.model},
               {"architecture", comparison.architecture},
               {"device", comparison.device},
               {"threads", comparison.threads},
               {"width", comparison.width},
               {"height", comparison.height},
               {"num_steps", comparison.steps},
               {"guidance", std::stod(fmt::format("{}", comparison.guidance))},
               {"seed", comparison.seed},
               {"first_picture", comparison.first},
               {"recorded", comparison.recorded},
               {"suite", comparison.suite.empty() ? Json() : Json(comparison.suite)},
               {"prompts", comparison.prompts},
               {"mass_fractions", std::vector<double>(std::begin(kMassFractions), std::end(kMassFractions))},
               {"dense", dense_json(comparison)},
               {"variants", Json::array()}};
  for (const Variant& variant : comparison.variants) json["variants"].push_back(variant_json(comparison, variant));
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace chipmunk::cli
