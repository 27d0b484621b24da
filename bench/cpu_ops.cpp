// Speed of the CPU backend's matmuls and attention at FLUX shapes beside oneDNN's own f32 matmul.
// Usage: chipmunk_bench_cpu_ops [--threads N] [--repetitions N] [--quick]
//
// The two sides take turns, so that a disturbance of the machine hits both; rates are medians, the spread is the
// slowest to the fastest repetition, and the fraction is the median of the ratios of neighbouring runs. Every output
// is checked against float64 sums at sampled places before anything is timed.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <dnnl.hpp>
#include <string>
#include <vector>

#include "backend.h"
#include "bench_support.h"
#include "core/float_formats.h"
#include "ops/attention.h"
#include "ops/linear.h"

namespace {

using namespace chipmunk;
using namespace chipmunk::bench;

struct Options {
  int threads = 0;
  int repetitions = 5;
  bool quick = false;
};

/// GFLOP/s of repeated runs.
struct Rates {
  std::vector<double> values;
  double middle() const { return median(values); }
  std::string describe() const {
    char text[64];
    std::snprintf(text, sizeof(text), "%7.1f [%6.1f .. %6.1f]", middle(),
                  *std::min_element(values.begin(), values.end()), *std::max_element(values.begin(), values.end()));
    return text;
  }
};

/// oneDNN's f32 matmul with its weights already in the layout that it likes best.
class OneDnnMatmul {
 public:
  OneDnnMatmul(int64_t m, int64_t n, int64_t k) : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    using dnnl::memory;
    const auto f32 = memory::data_type::f32;
    const memory::desc x({m, k}, f32, memory::format_tag::ab), out({m, n}, f32, memory::format_tag::ab);
    const memory::desc weight({k, n}, f32, memory::format_tag::any);
    const dnnl::matmul::primitive_desc desc(dnnl::matmul::desc(x, weight, out), engine_);
    matmul_ = dnnl::matmul(desc);
    x_ = memory(x, engine_);
    weight_ = memory(desc.weights_desc(), engine_);
    out_ = memory(out, engine_);
    Noise noise;
    for (memory* part : {&x_, &weight_}) {
      auto* values = static_cast<float*>(part->get_data_handle());
      for (size_t i = 0; i < part->get_desc().get_size() / sizeof(float); ++i) values[i] = noise.next();
    }
  }

  void run() {
    matmul_.execute(stream_, {{DNNL_ARG_SRC, x_}, {DNNL_ARG_WEIGHTS, weight_}, {DNNL_ARG_DST, out_}});
    stream_.wait();
  }

 private:
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::matmul matmul_;
  dnnl::memory x_, weight_, out_;
};

void check_linear(const Tensor& x, const Tensor& weight, const Tensor& out) {
  const int64_t m = x.dim(0), n = weight.dim(0), k = x.dim(1);
  for (int64_t sample = 0; sample < 64; ++sample) {
    const int64_t i = sample * 7919 % m, j = sample * 104729 % n;
    double sum = 0.0, magnitude = 0.0;
    for (int64_t l = 0; l < k; ++l) {
      const double product = static_cast<double>(x.data_as<float>()[i * k + l]) *
                             static_cast<double>(bf16_to_float(weight.data_as<uint16_t>()[j * k + l]));
      sum += product;
      magnitude += std::abs(product);
    }
    const double got = out.data_as<float>()[i * n + j];
    // Rounding errors of k f32 additions, were they independent.
    const double bound = 0x1p-24 * std::sqrt(static_cast<double>(k)) * magnitude;
    if (!(std::abs(got - sum) <= bound)) fail("linear", got, sum);
  }
}

/// Returns the median rate of oneDNN.
double bench_linear(const Context& context, const Options& options, int64_t m, int64_t n, int64_t k) {
  const Tensor x = random_tensor({m, k}, DType::kF32);
  const Linear layer{random_tensor({n, k}, DType::kBF16), {}};
  const Tensor out = make_host_tensor({m, n}, DType::kF32);
  OneDnnMatmul reference(m, n, k);
  const auto ours = [&] { ops::linear_into(context, x, layer, out); };
  ours();
  check_linear(x, layer.weight, out);
  reference.run();
  const double gigaflop = 2e-9 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  Rates own, one_dnn;
  std::vector<double> ratios;
  for (int i = 0; i < options.repetitions; ++i) {
    one_dnn.values.push_back(gigaflop / seconds([&] { reference.run(); }));
    own.values.push_back(gigaflop / seconds(ours));
    ratios.push_back(own.values.back() / one_dnn.values.back());
  }
  std::printf("linear    M %5lld N %5lld K %5lld | ours %s | oneDNN %s | fraction %.2f\n", static_cast<long long>(m),
              static_cast<long long>(n), static_cast<long long>(k), own.describe().c_str(), one_dnn.describe().c_str(),
              median(ratios));
  std::fflush(stdout);
  return one_dnn.middle();
}

void check_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out) {
  const int64_t tokens = q.dim(1), heads = q.dim(2), dim = q.dim(3);
  const double scale = 1.0 / std::sqrt(static_cast<double>(dim));
  const auto at = [&](const Tensor& t, int64_t token, int64_t head, int64_t i) {
    return static_cast<double>(t.data_as<float>()[(token * heads + head) * dim + i]);
  };
  for (int64_t sample = 0; sample < 8; ++sample) {
    const int64_t token = sample * 7919 % tokens, head = sample % heads;
    std::vector<double> sums(static_cast<size_t>(dim));
    double total = 0.0;
    for (int64_t j = 0; j < tokens; ++j) {
      double score = 0.0;
      for (int64_t i = 0; i < dim; ++i) score += at(q, token, head, i) * at(k, j, head, i);
      const double p = std::exp(score * scale);
      total += p;
      for (int64_t i = 0; i < dim; ++i) sums[static_cast<size_t>(i)] += p * at(v, j, head, i);
    }
    for (int64_t i = 0; i < dim; ++i) {
      const double got = at(out, token, head, i), expected = sums[static_cast<size_t>(i)] / total;
      if (!(std::abs(got - expected) <= 1e-5)) fail("attention", got, expected);
    }
  }
}

void bench_attention(const Context& context, const Options& options, int64_t tokens, int64_t heads, int64_t dim,
                     double best_rate) {
  const Dims shape = {1, tokens, heads, dim};
  const Tensor q = random_tensor(shape, DType::kF32), k = random_tensor(shape, DType::kF32),
               v = random_tensor(shape, DType::kF32), out = make_host_tensor(shape, DType::kF32);
  OneDnnMatmul reference(4352, 1024, 3072);
  const double reference_gigaflop = 2e-9 * 4352 * 1024 * 3072;
  const auto ours = [&] { ops::attention_into(context, q, k, v, out); };
  ours();
  check_attention(q, k, v, out);
  reference.run();
  const double gigaflop = 4e-9 * static_cast<double>(tokens) * static_cast<double>(tokens) *
                          static_cast<double>(heads) * static_cast<double>(dim);
  Rates own;
  std::vector<double> ratios;
  for (int i = 0; i < options.repetitions; ++i) {
    const double one_dnn = reference_gigaflop / seconds([&] { reference.run(); });
    own.values.push_back(gigaflop / seconds(ours));
    ratios.push_back(own.values.back() / one_dnn);
  }
  std::printf(
      "attention N %5lld H %5lld D %5lld | ours %s | fraction of oneDNN's matmul: %.2f beside it, %.2f of its "
      "best\n",
      static_cast<long long>(tokens), static_cast<long long>(heads), static_cast<long long>(dim),
      own.describe().c_str(), median(ratios), own.middle() / best_rate);
  std::fflush(stdout);
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const bool has_value = i + 1 < argc;
    if (argument == "--threads" && has_value) {
      options.threads = std::atoi(argv[++i]);
    } else if (argument == "--repetitions" && has_value) {
      options.repetitions = std::max(1, std::atoi(argv[++i]));
    } else if (argument == "--quick") {
      options.quick = true;
    } else {
      std::fprintf(stderr, "usage: %s [--threads N] [--repetitions N] [--quick]\n", argv[0]);
      std::exit(2);
    }
  }
  return options;
}

}  // namespace

// An error ends a benchmark.
int main(int argc, char** argv) {  // NOLINT(bugprone-exception-escape)
  const Options options = parse(argc, argv);
  if (options.threads > 0) omp_set_num_threads(options.threads);
  const Context context = make_cpu_context({options.threads, 0});
  std::printf("%d threads, %d repetitions; GFLOP/s: median [slowest .. fastest]; weights bf16 (ours), f32 (oneDNN)\n",
              omp_get_max_threads(), options.repetitions);
  struct Shape {
    int64_t n, k;
  };
  double best = 0.0;
  for (const int64_t m : {int64_t{512}, int64_t{4352}}) {
    for (const Shape shape : {Shape{3072, 3072}, {9216, 3072}, {12288, 3072}, {3072, 12288}, {3072, 15360}}) {
      if (options.quick && (shape.n != 3072 || shape.k != 3072)) continue;
      best = std::max(best, bench_linear(context, options, m, shape.n, shape.k));
    }
  }
  bench_attention(context, options, 4096, 8, 128, best);
  bench_attention(context, options, 512, 24, 128, best);
  bench_attention(context, options, 77, 12, 64, best);
  if (!options.quick) bench_attention(context, options, 4096, 1, 512, best);
  return 0;
}
