#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "chipmunk/pipeline.h"
#include "evaluation/score.h"

/// What `chipmunk compare` finds out. Numbers that nothing tells are NaN.
namespace chipmunk::cli {

/// A running mean.
class Mean {
 public:
  void add(double value);
  /// NaN where nothing was added.
  double value() const;

 private:
  double sum_ = 0.0;
  int64_t count_ = 0;
};

/// What the records of several generations with the same settings have in common, as means over the pictures.
class RecordStatistics {
 public:
  struct LayerStep {
    Mean attention_kept, mlp_kept, attention_change;
  };
  struct StepSummary {
    double sigma = 0.0;
    std::string attention, mlp;  ///< of the pictures whose step was not skipped; "skip" if all were
    int skipped = 0;             ///< pictures
    Mean movement, multiply_adds, dense_multiply_adds;
    std::vector<LayerStep> layers;

    double attention_kept() const;  ///< mean over the layers
    double mlp_kept() const;
  };

  /// The records of one generation; none is fine. Throws kInternal for another number of steps or layers than before.
  void add(const std::vector<StepRecord>& records);

  const std::vector<StepSummary>& steps() const { return steps_; }
  size_t num_layers() const { return attention_mass_.size(); }
  /// Of a layer, at each of kMassFractions; empty where no step has it.
  std::vector<double> attention_mass(size_t layer) const;
  /// Sum of multiply-adds over those of the same steps without sparsity.
  double share_of_dense_work() const;
  /// Means over layers, steps and pictures; skipped steps count as 0.
  double attention_kept() const;
  double mlp_kept() const;

 private:
  std::vector<StepSummary> steps_;
  std::vector<std::vector<Mean>> attention_mass_;  // [layers, fractions]
};

/// One picture; files are relative to the output folder, empty where none was written.
struct ComparedPicture {
  std::string file, side_by_side;
  double denoise_ms = 0.0;
  double psnr = 0.0, ssim = 0.0;  ///< against the dense picture; psnr is infinite for equal pictures
  std::optional<bool> all_correct;
  std::vector<double> latent_error;  ///< after each step, |x_sparse - x_dense| / |x_dense|
  std::vector<int> skipped_steps;
  std::vector<double> movement;  ///< of each step, NaN where there is none
};

/// All pictures of one kind.
struct ComparedRun {
  std::vector<ComparedPicture> pictures;
  RecordStatistics records;
  Score score;  ///< with a suite

  double denoise_ms() const;  ///< of all pictures
};

struct Variant {
  std::string name;      ///< also its folder's
  std::string source;    ///< preset or file, as it was given
  std::string settings;  ///< all of them, as YAML
  ComparedRun run;

  /// After each step, mean over the pictures.
  std::vector<double> latent_error() const;
};

struct Comparison {
  std::string model, architecture, device;
  int width = 0, height = 0, steps = 0, threads = 0;
  float guidance = 0.0f;
  int64_t seed = 0;  ///< of picture 0
  size_t first = 0;  ///< number of the first picture: prompts that were skipped count
  bool recorded = false;
  std::string suite;  ///< empty for prompts of the user's
  std::vector<std::string> prompts;
  ComparedRun dense;
  std::vector<Variant> variants;
};

/// Over the finite values; NaN where there are none.
struct Summary {
  double mean, min;
  double deviation;  ///< the sample's standard deviation; NaN for fewer than two
  int infinite = 0;  ///< values left out
};
Summary summarise(const std::vector<double>& values);
Summary summarise_psnr(const ComparedRun& run);
Summary summarise_ssim(const ComparedRun& run);

}  // namespace chipmunk::cli
