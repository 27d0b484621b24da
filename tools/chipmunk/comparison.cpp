#include "comparison.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "chipmunk/error.h"

namespace chipmunk::cli {
namespace {

constexpr double kNothing = std::numeric_limits<double>::quiet_NaN();
constexpr const char* kSkip = "skip";

/// The mean of one member's means over all of `items`.
template <typename Item, typename Value>
double mean_over(const std::vector<Item>& items, Value value) {
  Mean mean;
  for (const Item& item : items) mean.add(value(item));
  return mean.value();
}

void note_kind(const std::string& kind, std::string* known) {
  if (known->empty() || *known == kSkip) *known = kind;
}

}  // namespace

void Mean::add(double value) {
  sum_ += value;
  ++count_;
}

double Mean::value() const { return count_ == 0 ? kNothing : sum_ / static_cast<double>(count_); }

double RecordStatistics::StepSummary::attention_kept() const {
  return mean_over(layers, [](const LayerStep& layer) { return layer.attention_kept.value(); });
}

double RecordStatistics::StepSummary::mlp_kept() const {
  return mean_over(layers, [](const LayerStep& layer) { return layer.mlp_kept.value(); });
}

void RecordStatistics::add(const std::vector<StepRecord>& records) {
  if (records.empty()) return;
  if (steps_.empty()) {
    steps_.resize(records.size());
    attention_mass_.assign(records.front().layers.size(), std::vector<Mean>(std::size(kMassFractions)));
  }
  if (records.size() != steps_.size()) throw Error(ErrorCode::kInternal, "generations recorded different steps");
  for (size_t i = 0; i < records.size(); ++i) {
    const StepRecord& record = records[i];
    StepSummary& step = steps_[i];
    step.sigma = record.sigma;
    note_kind(record.attention, &step.attention);
    note_kind(record.mlp, &step.mlp);
    if (record.attention == kSkip) ++step.skipped;
    if (record.movement >= 0.0) step.movement.add(record.movement);
    step.multiply_adds.add(record.multiply_adds);
    step.dense_multiply_adds.add(record.dense_multiply_adds);
    if (record.layers.size() != num_layers()) throw Error(ErrorCode::kInternal, "steps recorded different layers");
    step.layers.resize(num_layers());
    for (size_t layer = 0; layer < record.layers.size(); ++layer) {
      const LayerRecord& from = record.layers[layer];
      step.layers[layer].attention_kept.add(from.attention_kept);
      step.layers[layer].mlp_kept.add(from.mlp_kept);
      if (from.attention_change >= 0.0) step.layers[layer].attention_change.add(from.attention_change);
      const size_t fractions = std::min(from.attention_mass.size(), attention_mass_[layer].size());
      for (size_t f = 0; f < fractions; ++f) attention_mass_[layer][f].add(from.attention_mass[f]);
    }
  }
}

std::vector<double> RecordStatistics::attention_mass(size_t layer) const {
  std::vector<double> mass;
  for (const Mean& mean : attention_mass_.at(layer)) {
    if (!std::isnan(mean.value())) mass.push_back(mean.value());
  }
  return mass;
}

double RecordStatistics::share_of_dense_work() const {
  double work = 0.0, dense_work = 0.0;
  for (const StepSummary& step : steps_) {
    work += step.multiply_adds.value();
    dense_work += step.dense_multiply_adds.value();
  }
  return dense_work > 0.0 ? work / dense_work : kNothing;
}

double RecordStatistics::attention_kept() const {
  return mean_over(steps_, [](const StepSummary& step) { return step.attention_kept(); });
}

double RecordStatistics::mlp_kept() const {
  return mean_over(steps_, [](const StepSummary& step) { return step.mlp_kept(); });
}

double ComparedRun::denoise_ms() const {
  double sum = 0.0;
  for (const ComparedPicture& picture : pictures) sum += picture.denoise_ms;
  return sum;
}

std::vector<double> Variant::latent_error() const {
  std::vector<Mean> means;
  for (const ComparedPicture& picture : run.pictures) {
    means.resize(std::max(means.size(), picture.latent_error.size()));
    for (size_t i = 0; i < picture.latent_error.size(); ++i) means[i].add(picture.latent_error[i]);
  }
  std::vector<double> values;
  for (const Mean& mean : means) values.push_back(mean.value());
  return values;
}

Summary summarise(const std::vector<double>& values) {
  Summary summary{kNothing, kNothing, kNothing, 0};
  Mean mean;
  double smallest = std::numeric_limits<double>::infinity();
  int finite = 0;
  for (const double value : values) {
    if (!std::isfinite(value)) {
      ++summary.infinite;
      continue;
    }
    mean.add(value);
    smallest = std::min(smallest, value);
    ++finite;
  }
  summary.mean = mean.value();
  if (finite > 0) summary.min = smallest;
  if (finite < 2) return summary;
  double squares = 0.0;
  for (const double value : values) {
    if (std::isfinite(value)) squares += (value - summary.mean) * (value - summary.mean);
  }
  summary.deviation = std::sqrt(squares / (finite - 1));
  return summary;
}

Summary summarise_psnr(const ComparedRun& run) {
  std::vector<double> values;
  for (const ComparedPicture& picture : run.pictures) values.push_back(picture.psnr);
  return summarise(values);
}

Summary summarise_ssim(const ComparedRun& run) {
  std::vector<double> values;
  for (const ComparedPicture& picture : run.pictures) values.push_back(picture.ssim);
  return summarise(values);
}

}  // namespace chipmunk::cli
