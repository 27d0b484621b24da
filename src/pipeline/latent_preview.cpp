#include "pipeline/latent_preview.h"

#include <cmath>
#include <cstddef>
#include <vector>

#include "ops/elementwise.h"

namespace chipmunk {
namespace {

// Three levels of each colour channel: enough for a linear fit.
constexpr int kLevels = 3;
constexpr int kColours = kLevels * kLevels * kLevels;
// Latents of plain colours hardly span the space; the ridge keeps the unseen directions at zero.
constexpr double kRidge = 1e-2;

float level(int index) { return 2.0f * static_cast<float>(index) / (kLevels - 1) - 1.0f; }

/// Pictures of one colour each, [colours, side, side, 3].
Tensor plain_colours(int64_t side) {
  const Tensor images = make_host_tensor({kColours, side, side, 3}, DType::kF32);
  float* out = images.data_as<float>();
  for (int colour = 0; colour < kColours; ++colour) {
    for (int64_t pixel = 0; pixel < side * side; ++pixel) {
      *out++ = level(colour / (kLevels * kLevels));
      *out++ = level(colour / kLevels % kLevels);
      *out++ = level(colour % kLevels);
    }
  }
  return images;
}

/// Solves the symmetric positive definite system a x = b for the columns of b, in place (Cholesky).
void solve_in_place(std::vector<std::vector<double>>& a, std::vector<std::vector<double>>& b) {
  const size_t n = a.size();
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double sum = a[i][j];
      for (size_t k = 0; k < j; ++k) sum -= a[i][k] * a[j][k];
      a[i][j] = i == j ? std::sqrt(sum) : sum / a[j][j];
    }
  }
  for (std::vector<double>& column : b) {
    for (size_t i = 0; i < n; ++i) {
      for (size_t k = 0; k < i; ++k) column[i] -= a[i][k] * column[k];
      column[i] /= a[i][i];
    }
    for (size_t i = n; i-- > 0;) {
      for (size_t k = i + 1; k < n; ++k) column[i] -= a[k][i] * column[k];
      column[i] /= a[i][i];
    }
  }
}

}  // namespace

Linear fit_latent_colours(const Context& context, const AutoencoderKl& vae) {
  // Four latents a side: the centre is far enough from the border.
  const int64_t side = 4 * vae.config.spatial_factor();
  const Tensor images = ops::to_dense(context, context.to_device(plain_colours(side)), context.activation_dtype());
  const Tensor latents = context.to_host(
      ops::to_dense(context, vae.encode(context, images).mean.slice(1, 2, 3).slice(2, 2, 3), DType::kF32));

  const size_t channels = static_cast<size_t>(vae.config.latent_channels);
  const size_t unknowns = channels + 1;
  std::vector<std::vector<double>> normal(unknowns, std::vector<double>(unknowns, 0.0));
  std::vector<std::vector<double>> right(3, std::vector<double>(unknowns, 0.0));
  for (int colour = 0; colour < kColours; ++colour) {
    std::vector<double> row(unknowns, 1.0);
    for (size_t c = 0; c < channels; ++c) {
      row[c] = latents.data_as<float>()[static_cast<size_t>(colour) * channels + c];
    }
    const double target[3] = {level(colour / (kLevels * kLevels)), level(colour / kLevels % kLevels),
                              level(colour % kLevels)};
    for (size_t i = 0; i < unknowns; ++i) {
      for (size_t j = 0; j < unknowns; ++j) normal[i][j] += row[i] * row[j];
      for (size_t rgb = 0; rgb < 3; ++rgb) right[rgb][i] += row[i] * target[rgb];
    }
  }
  for (size_t i = 0; i < unknowns; ++i) normal[i][i] += kRidge;
  solve_in_place(normal, right);

  const Tensor weight = make_host_tensor({3, vae.config.latent_channels}, DType::kF32);
  const Tensor bias = make_host_tensor({3}, DType::kF32);
  for (size_t rgb = 0; rgb < 3; ++rgb) {
    for (size_t c = 0; c < channels; ++c) {
      weight.data_as<float>()[rgb * channels + c] = static_cast<float>(right[rgb][c]);
    }
    bias.data_as<float>()[rgb] = static_cast<float>(right[rgb][channels]);
  }
  return {context.to_device(weight), context.to_device(bias)};
}

}  // namespace chipmunk
