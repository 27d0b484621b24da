#include "html_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string_view>

#include "svg_plot.h"

namespace chipmunk::cli {
namespace {

constexpr const char* kStyle = R"(
body { font: 15px/1.45 sans-serif; color: #222; background: #fff; max-width: 1360px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.2em; margin-top: 2em; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; } th, td { padding: .3em .8em; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 1.5em; }
svg { width: 100%; height: auto; } figure { margin: 1em 0; } figure img { max-width: 100%; height: auto; }
figcaption { color: #555; } pre { background: #f5f5f5; padding: .8em; overflow-x: auto; }
)";

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k) {
      group = group << 8 | (i + k < bytes.size() ? static_cast<uint8_t>(bytes[i + k]) : 0u);
    }
    for (size_t k = 0; k < 4; ++k) {
      const bool padding = i + k > bytes.size();
      text += padding ? '=' : kDigits[group >> (18 - 6 * k) & 63u];
    }
  }
  return text;
}

std::string number(double value, int decimals) {
  return std::isfinite(value) ? fmt::format("{:.{}f}", value, decimals) : std::string("–");
}

std::string percent(double value) { return std::isfinite(value) ? number(100.0 * value, 1) + " %" : "–"; }

std::string interval(const Fraction& fraction) {
  if (fraction.total == 0) return "–";
  return fmt::format("{} [{}, {}]", percent(fraction.value()), number(100.0 * fraction.low(), 1),
                     number(100.0 * fraction.high(), 1));
}

std::string row(const std::vector<std::string>& cells, const char* kind) {
  std::string html = "<tr>";
  for (const std::string& content : cells) html += fmt::format("<{0}>{1}</{0}>", kind, escape_markup(content));
  return html + "</tr>\n";
}

std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::string html = "<div class=\"scroll\"><table>\n";
  for (size_t i = 0; i < rows.size(); ++i) html += row(rows[i], i == 0 ? "th" : "td");
  return html + "</table></div>\n";
}

std::string summary_table(const Comparison& comparison) {
  std::vector<std::vector<std::string>> rows = {{"variant", "PSNR mean [dB]", "min", "std", "equal", "SSIM mean", "min",
                                                 "work", "columns kept", "features kept", "dense [s a picture]",
                                                 "sparse", "speed-up"}};
  const auto pictures = static_cast<double>(comparison.prompts.size());
  const double dense_ms = comparison.dense.denoise_ms();
  for (const Variant& variant : comparison.variants) {
    const Summary psnr = summarise_psnr(variant.run), ssim = summarise_ssim(variant.run);
    const RecordStatistics& records = variant.run.records;
    const double ms = variant.run.denoise_ms();
    rows.push_back({variant.name, number(psnr.mean, 2), number(psnr.min, 2), number(psnr.deviation, 2),
                    std::to_string(psnr.infinite), number(ssim.mean, 4), number(ssim.min, 4),
                    percent(records.share_of_dense_work()), percent(records.attention_kept()),
                    percent(records.mlp_kept()), number(dense_ms / pictures / 1e3, 2), number(ms / pictures / 1e3, 2),
                    number(dense_ms / ms, 2)});
  }
  return table(rows) +
         "<p>PSNR and SSIM are against the dense picture of the same prompt and seed; equal pictures, whose PSNR is "
         "infinite, are counted and left out of its mean. Work: multiply-adds of attention and MLP as a share of the "
         "dense run's. Kept: means over layers and steps, skipped steps as 0.</p>\n";
}

std::string score_table(const Comparison& comparison) {
  if (comparison.suite.empty()) return {};
  std::vector<std::vector<std::string>> rows = {{"", "all correct", "object", "colour", "shape", "relation"}};
  const auto add = [&rows](const std::string& name, const ScoreRow& score) {
    rows.push_back({name, interval(score.all_correct), interval(score.object), interval(score.colour),
                    interval(score.shape), interval(score.relation)});
  };
  add("dense", comparison.dense.score.all);
  for (const Variant& variant : comparison.variants) add(variant.name, variant.run.score.all);
  return "<h2>Does it show what the prompt says</h2>\n" + table(rows) + "<p>With 95 % Wilson intervals.</p>\n";
}

std::vector<double> counted(size_t count, double first) {
  std::vector<double> values;
  for (size_t i = 0; i < count; ++i) values.push_back(first + static_cast<double>(i));
  return values;
}

Plot latent_error_plot(const Comparison& comparison) {
  Plot plot{"Relative error of the latents", "step", "|sparse - dense| / |dense|", {}};
  for (size_t i = 0; i < comparison.variants.size(); ++i) {
    const std::vector<double> error = comparison.variants[i].latent_error();
    plot.lines.push_back({comparison.variants[i].name, counted(error.size(), 1.0), error, category_colour(i)});
  }
  return plot;
}

using LayerStep = RecordStatistics::LayerStep;

/// Of each layer, the mean over the steps that have it.
std::vector<double> by_layer(const RecordStatistics& records, Mean LayerStep::* member) {
  std::vector<Mean> means(records.num_layers());
  for (const RecordStatistics::StepSummary& step : records.steps()) {
    for (size_t layer = 0; layer < step.layers.size(); ++layer) {
      const double value = (step.layers[layer].*member).value();
      if (std::isfinite(value)) means[layer].add(value);
    }
  }
  std::vector<double> values;
  for (const Mean& mean : means) values.push_back(mean.value());
  return values;
}

Plot kept_plot(const Comparison& comparison) {
  Plot plot{"Kept fractions by layer", "layer", "mean over the steps", {}};
  for (size_t i = 0; i < comparison.variants.size(); ++i) {
    const RecordStatistics& records = comparison.variants[i].run.records;
    const std::string& name = comparison.variants[i].name;
    const std::vector<double> layers = counted(records.num_layers(), 0.0);
    plot.lines.push_back(
        {name + ", columns", layers, by_layer(records, &LayerStep::attention_kept), category_colour(i)});
    plot.lines.push_back(
        {name + ", features", layers, by_layer(records, &LayerStep::mlp_kept), category_colour(i), true});
  }
  return plot;
}

std::string layer_colour(const RecordStatistics& records, size_t layer) {
  return ramp_colour(static_cast<double>(layer) / static_cast<double>(std::max<size_t>(records.num_layers(), 2) - 1));
}

Plot mass_plot(const std::string& name, const RecordStatistics& records) {
  Plot plot{"Attention held by the heaviest columns: " + name, "fraction of the columns", "share of attention", {}};
  plot.log_x = plot.ramp_legend = true;
  for (size_t layer = 0; layer < records.num_layers(); ++layer) {
    const std::vector<double> mass = records.attention_mass(layer);
    if (mass.size() != std::size(kMassFractions)) continue;
    plot.lines.push_back({fmt::format("layer {}", layer),
                          {std::begin(kMassFractions), std::end(kMassFractions)},
                          mass,
                          layer_colour(records, layer)});
  }
  return plot;
}

Plot change_plot(const std::string& name, const RecordStatistics& records) {
  Plot plot{"Change of the attention's output: " + name, "step", "|O_t - O_(t-1)| / |O_t|", {}};
  plot.ramp_legend = true;
  for (size_t layer = 0; layer < records.num_layers(); ++layer) {
    std::vector<double> values;
    for (const RecordStatistics::StepSummary& step : records.steps()) {
      values.push_back(step.layers[layer].attention_change.value());
    }
    plot.lines.push_back(
        {fmt::format("layer {}", layer), counted(values.size(), 1.0), std::move(values), layer_colour(records, layer)});
  }
  return plot;
}

/// Layers that keep attention's mass in few columns, and change little from step to step, are what the method lives on.
std::string plots(const Comparison& comparison) {
  std::string html = "<h2>Steps and layers</h2>\n<div class=\"plots\">\n";
  const auto add = [&html](const Plot& plot) { html += "<figure>" + to_svg(plot) + "</figure>\n"; };
  add(latent_error_plot(comparison));
  add(kept_plot(comparison));
  const auto add_run = [&add](const std::string& name, const RecordStatistics& records) {
    const Plot mass = mass_plot(name, records);
    if (!mass.lines.empty()) add(mass);
    if (records.num_layers() > 0) add(change_plot(name, records));
  };
  add_run("dense", comparison.dense.records);
  for (const Variant& variant : comparison.variants) add_run(variant.name, variant.run.records);
  return html + "</div>\n";
}

std::string gallery(const Variant& variant, const ReportGallery& shown) {
  std::string html = "<h2>" + escape_markup(variant.name) + "</h2>\n";
  if (!shown.pictures.empty()) html += "<p>Dense, sparse, and eight times their difference.</p>\n";
  for (const ReportPicture& picture : shown.pictures) {
    html += fmt::format(
        "<figure><img width=\"{}\" height=\"{}\" alt=\"{}\" "
        "src=\"data:image/png;base64,{}\"><figcaption>{}</figcaption>"
        "</figure>\n",
        picture.width, picture.height, escape_markup(picture.caption), base64(picture.png),
        escape_markup(picture.caption));
  }
  return html + "<details><summary>Settings of " + escape_markup(variant.source) + "</summary><pre>" +
         escape_markup(variant.settings) + "</pre></details>\n";
}

}  // namespace

std::string to_html(const Comparison& comparison, const std::vector<ReportGallery>& galleries) {
  std::string body = "<h1>Dense and sparse pictures</h1>\n";
  body += "<p>" +
          escape_markup(fmt::format("{} on {}: {} pictures of {}x{}, {} steps, guidance {}, seeds from {}; chipmunk {}",
                                    comparison.model, comparison.device, comparison.prompts.size(), comparison.width,
                                    comparison.height, comparison.steps, comparison.guidance, comparison.seed,
                                    CHIPMUNK_VERSION)) +
          "</p>\n";
  body += summary_table(comparison);
  if (comparison.recorded) {
    body += "<p>Recording what layers do took part of both times; chipmunk compare --no-record measures without.</p>\n";
  }
  body += score_table(comparison) + plots(comparison);
  for (size_t i = 0; i < comparison.variants.size(); ++i) body += gallery(comparison.variants[i], galleries.at(i));
  return "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
         "content=\"width=device-width\"><title>Dense and sparse pictures</title><style>" +
         std::string(kStyle) + "</style></head><body>\n" + body + "</body></html>\n";
}

}  // namespace chipmunk::cli
