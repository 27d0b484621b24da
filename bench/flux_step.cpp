// One step of a slice of FLUX.1's transformer (one double and one single block at full width) on the CPU, beside the
// best f32 rate of oneDNN in the same run.
//   chipmunk_bench_flux_step [--tokens 4096] [--text 256] [--repeat 3] [--threads 0]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "backend.h"
#include "core/float_formats.h"
#include "core/philox.h"
#include "models/flux_transformer.h"
#include "onednn_peak.h"

namespace {

using namespace chipmunk;

struct Arguments {
  int64_t image_side = 64;  // tokens a side: 4,096 image tokens
  int64_t text_tokens = 256;
  int repeat = 3;
  int threads = 0;
};

/// Random normal bf16 values times `scale`.
Tensor random_bf16(const Dims& shape, uint64_t seed, float scale) {
  const Tensor tensor = make_host_tensor(shape, DType::kBF16);
  // One short stream, repeated: the values do not matter for speed, only that they are ordinary numbers.
  std::vector<float> values(1 << 16);
  philox_normals(seed, values);
  uint16_t* out = tensor.data_as<uint16_t>();
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    out[i] = float_to_bf16(values[static_cast<size_t>(i) % values.size()] * scale);
  }
  return tensor;
}

Tensor random_f32(const Dims& shape, uint64_t seed) {
  const Tensor tensor = make_host_tensor(shape, DType::kF32);
  philox_normals(seed, std::span<float>(tensor.data_as<float>(), static_cast<size_t>(tensor.numel())));
  return tensor;
}

Linear random_linear(int64_t out_features, int64_t in_features, uint64_t seed) {
  return {random_bf16({out_features, in_features}, seed, 1.0f / std::sqrt(static_cast<float>(in_features))),
          random_bf16({out_features}, seed + 1, 0.02f)};
}

FluxDoubleStream random_stream(const FluxConfig& config, uint64_t seed) {
  const int64_t c = config.inner_dim();
  return {random_linear(6 * c, c, seed),
          {{random_linear(c, c, seed + 2), random_linear(c, c, seed + 4), random_linear(c, c, seed + 6)}},
          random_bf16({config.attention_head_dim}, seed + 8, 1.0f),
          random_bf16({config.attention_head_dim}, seed + 9, 1.0f),
          random_linear(c, c, seed + 10),
          {random_linear(config.mlp_dim(), c, seed + 12), random_linear(c, config.mlp_dim(), seed + 14)}};
}

FluxTransformer random_slice(const FluxConfig& config) {
  const int64_t c = config.inner_dim();
  FluxTransformer model;
  model.config = config;
  model.x_embedder = random_linear(c, config.in_channels, 1);
  model.context_embedder = random_linear(c, config.joint_attention_dim, 3);
  model.timestep_embedder = {random_linear(c, 256, 5), random_linear(c, c, 7)};
  model.text_embedder = {random_linear(c, config.pooled_projection_dim, 9), random_linear(c, c, 11)};
  model.double_blocks = {{random_stream(config, 100), random_stream(config, 200)}};
  model.single_blocks = {{random_linear(3 * c, c, 300),
                          {{random_linear(c, c, 302), random_linear(c, c, 304), random_linear(c, c, 306)}},
                          random_bf16({config.attention_head_dim}, 308, 1.0f),
                          random_bf16({config.attention_head_dim}, 309, 1.0f),
                          random_linear(config.mlp_dim(), c, 310),
                          random_linear(c, c + config.mlp_dim(), 312)}};
  model.norm_out = random_linear(2 * c, c, 400);
  model.proj_out = random_linear(config.out_channels, c, 402);
  return model;
}

/// Multiply-adds times two of one forward: linears over all tokens, and attention in both blocks.
double step_flops(const FluxConfig& config, double text, double image) {
  const double c = static_cast<double>(config.inner_dim()), tokens = text + image;
  const double per_token = 12.0 * c * c;  // qkv 3, attention out 1, MLP 8
  const double linears = 2.0 * tokens * per_token + image * c * static_cast<double>(2 * config.in_channels) +
                         text * c * static_cast<double>(config.joint_attention_dim);
  const double attention = 2.0 * 2.0 * tokens * tokens * c;
  return 2.0 * (linears + attention);
}

}  // namespace

// An error ends a benchmark.
int main(int argc, char** argv) {  // NOLINT(bugprone-exception-escape)
  Arguments arguments;
  for (int i = 1; i + 1 < argc; i += 2) {
    const int64_t value = std::atoll(argv[i + 1]);
    if (std::strcmp(argv[i], "--side") == 0) arguments.image_side = value;
    if (std::strcmp(argv[i], "--text") == 0) arguments.text_tokens = value;
    if (std::strcmp(argv[i], "--repeat") == 0) arguments.repeat = static_cast<int>(value);
    if (std::strcmp(argv[i], "--threads") == 0) arguments.threads = static_cast<int>(value);
  }
  FluxConfig config;
  config.num_layers = 1;
  config.num_single_layers = 1;
  const int64_t image_tokens = arguments.image_side * arguments.image_side;
  const Context context = make_cpu_context({arguments.threads, 0});
  const FluxTransformer model = random_slice(config);
  const FluxInputs inputs = {random_f32({1, image_tokens, config.in_channels}, 1),
                             random_f32({1, arguments.text_tokens, config.joint_attention_dim}, 2),
                             random_f32({1, config.pooled_projection_dim}, 3),
                             {0.5f},
                             {}};
  const RopeTables rope =
      make_rope_tables(context, flux_positions(arguments.text_tokens, arguments.image_side, arguments.image_side),
                       config.axes_dims_rope, 10000.0);

  const double flops =
      step_flops(config, static_cast<double>(arguments.text_tokens), static_cast<double>(image_tokens));
  std::vector<double> seconds;
  std::vector<double> peaks;
  for (int i = 0; i <= arguments.repeat; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const Tensor out = model.forward(context, inputs, rope, {});
    const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    double sum = 0.0;
    for (int64_t k = 0; k < out.numel(); ++k) sum += std::abs(static_cast<double>(out.data_as<float>()[k]));
    const double mean = sum / static_cast<double>(out.numel());
    if (!(mean > 1e-3 && mean < 1e3)) {
      std::printf("the output is not sane: mean magnitude %g\n", mean);
      return 1;
    }
    if (i == 0) continue;  // warm-up: page faults and oneDNN's code generation
    seconds.push_back(elapsed);
    peaks.push_back(bench::onednn_f32_flops(static_cast<int>(image_tokens + arguments.text_tokens), 3072, 3072));
  }
  std::sort(seconds.begin(), seconds.end());
  std::sort(peaks.begin(), peaks.end());
  const double median = seconds[seconds.size() / 2], peak = peaks[peaks.size() / 2];
  std::printf("FLUX slice, 1 double + 1 single block, hidden 3072, %lld + %lld tokens, bf16 weights\n",
              static_cast<long long>(arguments.text_tokens), static_cast<long long>(image_tokens));
  std::printf("step: median %.2f s (%.2f to %.2f), %.0f GFLOP, %.1f GFLOP/s\n", median, seconds.front(), seconds.back(),
              flops / 1e9, flops / median / 1e9);
  std::printf("oneDNN f32 matmul in the same run: %.1f GFLOP/s (%.1f to %.1f); fraction of it: %.1f %%\n", peak / 1e9,
              peaks.front() / 1e9, peaks.back() / 1e9, 100.0 * flops / median / peak);
  return 0;
}
