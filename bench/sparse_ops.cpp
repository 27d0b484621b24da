// Speed of the sparse method's ops on the CPU beside our own dense ones, at FLUX's width and 4,096 tokens.
// Usage: chipmunk_bench_sparse_ops [THREADS [REPETITIONS]]
//
// Dense and sparse take turns; the speed-up is the median of the ratios of neighbouring runs, with the smallest and the
// largest. Sparse outputs are checked against float64 sums at sampled places before anything is timed.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "backend.h"
#include "bench_support.h"
#include "core/column_selection.h"
#include "ops/attention.h"
#include "ops/column_attention.h"
#include "ops/elementwise.h"
#include "ops/linear.h"
#include "sparse/mlp_state.h"

namespace {

using namespace chipmunk;
using namespace chipmunk::bench;

constexpr int64_t kTokens = 4096, kHeads = 8, kHeadDim = 128, kGroup = 192;
constexpr int64_t kChannels = 3072, kFeatures = 12288;

void print(const std::string& what, const std::vector<double>& dense, const std::vector<double>& sparse) {
  std::vector<double> ratios;
  for (size_t i = 0; i < dense.size(); ++i) ratios.push_back(dense[i] / sparse[i]);
  std::printf("%-34s dense %8.1f ms | sparse %8.1f ms | speed-up %.2f [%.2f .. %.2f]\n", what.c_str(),
              1e3 * median(dense), 1e3 * median(sparse), median(ratios),
              *std::min_element(ratios.begin(), ratios.end()), *std::max_element(ratios.begin(), ratios.end()));
  std::fflush(stdout);
}

/// Each group's columns at random: the largest of random scores.
ops::ColumnSet random_columns(int64_t kept) {
  const int64_t groups = (kTokens + kGroup - 1) / kGroup, rows = kHeads * groups;
  const ops::ColumnSet columns{make_host_tensor({1, kHeads, groups, kept}, DType::kI32),
                               make_host_tensor({1, kHeads, groups}, DType::kI32), kGroup};
  for (int64_t row = 0; row < rows; ++row) {
    const Tensor scores = random_tensor({kTokens}, DType::kF32, static_cast<uint64_t>(row) + 77);
    std::vector<uint8_t> mask(static_cast<size_t>(kTokens));
    add_top_k({scores.data_as<float>(), mask.size()}, kept, mask);
    int32_t* ids = columns.indices.data_as<int32_t>() + row * kept;
    for (size_t j = 0; j < mask.size(); ++j) {
      if (mask[j] != 0) *ids++ = static_cast<int32_t>(j);
    }
    columns.counts.data_as<int32_t>()[row] = static_cast<int32_t>(kept);
  }
  return columns;
}

void check_attention(const Tensor& q, const Tensor& k, const Tensor& v, const ops::ColumnSet& columns,
                     const Tensor& out) {
  const int64_t kept = columns.indices.dim(3), groups = columns.indices.dim(2);
  const auto at = [](const Tensor& t, int64_t token, int64_t head, int64_t i) {
    return static_cast<double>(t.data_as<float>()[(token * kHeads + head) * kHeadDim + i]);
  };
  for (int64_t sample = 0; sample < 8; ++sample) {
    const int64_t token = sample * 7919 % kTokens, head = sample % kHeads;
    const int32_t* ids = columns.indices.data_as<int32_t>() + (head * groups + token / kGroup) * kept;
    std::vector<double> sums(static_cast<size_t>(kHeadDim));
    double total = 0.0;
    for (int64_t j = 0; j < kept; ++j) {
      double score = 0.0;
      for (int64_t i = 0; i < kHeadDim; ++i) score += at(q, token, head, i) * at(k, ids[j], head, i);
      const double p = std::exp(score / std::sqrt(static_cast<double>(kHeadDim)));
      total += p;
      for (int64_t i = 0; i < kHeadDim; ++i) sums[static_cast<size_t>(i)] += p * at(v, ids[j], head, i);
    }
    for (int64_t i = 0; i < kHeadDim; ++i) {
      const double got = at(out, token, head, i), expected = sums[static_cast<size_t>(i)] / total;
      if (!(std::abs(got - expected) <= 1e-5)) fail("column attention", got, expected);
    }
  }
}

void bench_attention(const Context& context, int repetitions) {
  const Dims shape = {1, kTokens, kHeads, kHeadDim};
  const Tensor q = random_tensor(shape, DType::kF32, 1), k = random_tensor(shape, DType::kF32, 2),
               v = random_tensor(shape, DType::kF32, 3), cache = random_tensor(shape, DType::kF32, 4),
               out = make_host_tensor(shape, DType::kF32);
  for (const double share : {0.25, 0.165, 0.07}) {
    const int64_t kept = top_k_count(share, kTokens);
    const ops::ColumnSet columns = random_columns(kept);
    ops::column_attention_into(context, q, k, v, columns, out);
    check_attention(q, k, v, columns, out);
    ops::ColumnAttentionOptions options;
    options.epilogue = ColumnEpilogue::kAdd;
    options.residual = cache;
    std::vector<double> dense, sparse;
    for (int i = 0; i < repetitions; ++i) {
      dense.push_back(seconds([&] { ops::attention_into(context, q, k, v, out); }));
      sparse.push_back(seconds([&] { ops::column_attention_into(context, q, k, v, columns, out, options); }));
    }
    print("attention, " + std::to_string(kept) + " of 4096 keys", dense, sparse);
  }
  // What a refresh costs besides the dense attention: column sums, selection, and the cache.
  ops::AttentionOptions summed;
  const int64_t groups = (kTokens + kGroup - 1) / kGroup;
  summed.lse = summed.column_lse = make_host_tensor({1, kHeads, kTokens}, DType::kF32);
  summed.column_sums = make_host_tensor({1, kHeads, groups, kTokens}, DType::kF32);
  summed.group_size = kGroup;
  std::fill_n(summed.lse.data_as<float>(), summed.lse.numel(), 8.0f);
  ops::ColumnSet columns = random_columns(top_k_count(0.165, kTokens));
  ops::ColumnSelection selection;
  selection.top_k = columns.indices.dim(3);
  std::vector<double> dense, with_sums, selecting;
  for (int i = 0; i < repetitions; ++i) {
    dense.push_back(seconds([&] { ops::attention_into(context, q, k, v, out); }));
    with_sums.push_back(seconds([&] { ops::attention_into(context, q, k, v, out, summed); }));
    selecting.push_back(seconds([&] { ops::select_columns(context, summed.column_sums, selection, columns); }));
  }
  print("dense attention with column sums", dense, with_sums);
  print("choosing 16.5 % of the columns", dense, selecting);
}

void check_mlp(const Tensor& x, const MlpWeights& weights, const SparseMlpState& state) {
  // Activations of kept features are those of x now.
  const int32_t* ids = state.features().indices.data_as<int32_t>();
  for (int64_t sample = 0; sample < 32; ++sample) {
    const int64_t block = sample % 8, token = block * 128 + sample, capacity = state.features().indices.dim(2);
    const int64_t count = state.features().counts.data_as<int32_t>()[block];
    const int32_t feature = ids[block * capacity + sample * 7919 % count];
    double sum = 0.0;
    for (int64_t c = 0; c < kChannels; ++c) {
      sum += static_cast<double>(x.data_as<float>()[token * kChannels + c]) *
             static_cast<double>(bf16_to_float(weights.first.weight.data_as<uint16_t>()[feature * kChannels + c]));
    }
    const double expected = 0.5 * sum * (1.0 + std::tanh(0.7978845608028654 * (sum + 0.044715 * sum * sum * sum)));
    const double got = state.activations().data_as<float>()[token * kFeatures + feature];
    if (!(std::abs(got - expected) <= 1e-4 * (1.0 + std::abs(expected)))) fail("sparse MLP", got, expected);
  }
}

void bench_mlp(const Context& context, int repetitions) {
  MlpWeights weights{{random_tensor({kFeatures, kChannels}, DType::kBF16, 5), {}},
                     {random_tensor({kChannels, kFeatures}, DType::kBF16, 6), {}},
                     {}};
  weights.second_transposed = ops::to_dense(context, weights.second.weight.permute({1, 0}), DType::kBF16);
  const Tensor x = random_tensor({1, kTokens, kChannels}, DType::kF32, 7),
               next = random_tensor({1, kTokens, kChannels}, DType::kF32, 8),
               gate = random_tensor({1, kChannels}, DType::kF32, 9);
  const Tensor stream = make_host_tensor({1, kTokens, kChannels}, DType::kF32),
               hidden = make_host_tensor({1, kTokens, kFeatures}, DType::kF32);
  std::memset(stream.data(), 0, stream.bytes());
  for (const double random_share : {0.0, 0.05}) {
    SparseMlpPlan plan;
    plan.top_keys = 0.3;
    plan.random_keys = random_share;
    SparseMlpState state(std::make_shared<const SparseMlpPlan>(plan), 0, 0);
    state.forward(context, MlpStep::kFull, 0, x, weights);
    state.forward(context, MlpStep::kSparseSelect, 1, next, weights);
    check_mlp(next, weights, state);
    std::vector<double> dense, sparse;
    for (int i = 0; i < repetitions; ++i) {
      dense.push_back(seconds([&] {
        ops::linear_into(context, x, weights.first, hidden, {weights.activation, {}, {}});
        ops::linear_into(context, hidden, weights.second, stream, {Activation::kNone, gate, stream});
      }));
      sparse.push_back(seconds([&] {
        state.forward(context, MlpStep::kSparseSelect, 2 + i, i % 2 == 0 ? x : next, weights);
        ops::gated_add_into(context, state.output(), gate, stream, stream);
      }));
    }
    print("MLP, 30 % + " + std::to_string(static_cast<int>(100 * random_share)) + " % of the features", dense, sparse);
  }
}

}  // namespace

// An error ends a benchmark.
int main(int argc, char** argv) {  // NOLINT(bugprone-exception-escape)
  const int threads = argc > 1 ? std::atoi(argv[1]) : 0, repetitions = argc > 2 ? std::max(1, std::atoi(argv[2])) : 5;
  if (threads > 0) omp_set_num_threads(threads);
  const Context context = make_cpu_context({threads, 0});
  std::printf("%d threads, %d repetitions; %lld tokens, %lld heads of %lld, MLP %lld to %lld, bf16 weights\n",
              omp_get_max_threads(), repetitions, static_cast<long long>(kTokens), static_cast<long long>(kHeads),
              static_cast<long long>(kHeadDim), static_cast<long long>(kChannels), static_cast<long long>(kFeatures));
  bench_attention(context, repetitions);
  bench_mlp(context, repetitions);
  return 0;
}
