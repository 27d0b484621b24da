#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/generated_attention.h"
#include "kernels/generated_values.h"
#include "ops/attention.h"
#include "ops/column_attention.h"
#include "support/op_test.h"

namespace chipmunk::test {
namespace {

constexpr int64_t kGroup = 192;
/// Problems a test body draws; what is tested of each is dense attention with and without column sums, and column
/// attention with three epilogues.
constexpr uint64_t kProblemsPerTest = 20;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct RowPlace {
  int64_t batch, head, row;
};

/// One generated problem and everything that is asked of it.
class Sequence {
 public:
  Sequence(const Context& context, const GeneratedAttention& problem)
      : context_(context),
        p_(problem),
        scale_(1.0 / std::sqrt(static_cast<double>(problem.head_dim))),
        q_(make_heads(context, p_, p_.query_tokens, p_.seed * 4, p_.q_scale,
                      p_.nan_in_query ? p_.query_tokens / 2 : -1)),
        k_(make_heads(context, p_, p_.key_tokens, p_.seed * 4 + 1, 1.0f, p_.nan_in_key ? p_.key_tokens / 2 : -1)),
        v_(make_heads(context, p_, p_.key_tokens, p_.seed * 4 + 2, 1.0f)) {
    std::mt19937_64 engine(p_.seed);
    // Some rows at random, and the ends of a head.
    for (int64_t row : {int64_t{0}, p_.query_tokens - 1}) places_.push_back({p_.batch - 1, p_.heads - 1, row});
    const int64_t count = std::clamp<int64_t>(4000000 / (p_.key_tokens * p_.head_dim), 4, 40);
    for (int64_t i = 0; i < count; ++i) {
      places_.push_back({static_cast<int64_t>(engine() % static_cast<uint64_t>(p_.batch)),
                         static_cast<int64_t>(engine() % static_cast<uint64_t>(p_.heads)),
                         static_cast<int64_t>(engine() % static_cast<uint64_t>(p_.query_tokens))});
    }
  }

  void run() {
    dense();
    column_sums();
    const GeneratedColumns columns = make_columns(context_, p_, kGroup);
    only_columns(columns);
    split_and_merge(columns);
    subtract_and_add(columns);
  }

 private:
  Tensor empty_heads() const {
    const bool head_major = p_.layout == HeadLayout::kHeadMajor;
    if (!head_major) return context_.empty({p_.batch, p_.query_tokens, p_.heads, p_.head_dim});
    return context_.empty({p_.batch, p_.heads, p_.query_tokens, p_.head_dim}).permute({0, 2, 1, 3});
  }
  Tensor empty_rows() const { return context_.empty({p_.batch, p_.heads, p_.query_tokens}, DType::kF32); }
  Tensor upload_rows(const std::vector<float>& values) const {
    const Tensor host = make_host_tensor({p_.batch, p_.heads, p_.query_tokens}, DType::kF32);
    std::copy(values.begin(), values.end(), static_cast<float*>(host.data()));
    return context_.to_device(host);
  }
  size_t row_index(const RowPlace& at) const {
    return static_cast<size_t>((at.batch * p_.heads + at.head) * p_.query_tokens + at.row);
  }
  /// The values of a head tensor in the order [B, H, N, D].
  std::vector<float> read_rows(const Tensor& heads) const {
    const bool head_major = p_.layout == HeadLayout::kHeadMajor;
    const Tensor dense = head_major ? heads.permute({0, 2, 1, 3}) : heads;
    std::vector<float> values = read_heads(context_, dense);
    if (head_major) return values;
    std::vector<float> ordered(values.size());
    const auto dim = static_cast<size_t>(p_.head_dim);
    for (int64_t b = 0; b < p_.batch; ++b) {
      for (int64_t h = 0; h < p_.heads; ++h) {
        for (int64_t i = 0; i < p_.query_tokens; ++i) {
          const auto from = static_cast<size_t>((b * p_.query_tokens + i) * p_.heads + h) * dim;
          std::copy_n(values.begin() + static_cast<int64_t>(from), dim,
                      ordered.begin() + static_cast<int64_t>(row_index({b, h, i}) * dim));
        }
      }
    }
    return ordered;
  }
  std::vector<int32_t> visible_keys(int64_t batch) const {
    std::vector<int32_t> keys(
        static_cast<size_t>(lengths_.empty() ? p_.key_tokens : lengths_[static_cast<size_t>(batch)]));
    std::iota(keys.begin(), keys.end(), 0);
    return keys;
  }
  RowReference attend(const HeadTensor& q, const RowPlace& at, const std::vector<int32_t>& keys) const {
    return attend_row(q.row(at.batch, at.row, at.head), k_, v_, at.batch, at.head, keys, scale_);
  }
  std::string what(const char* part) const { return std::string(part) + ", " + p_.describe(); }

  /// out = exact(reference, i), whose plain version is plain(reference, i).
  template <class Formula>
  void expect_rows(const char* part, const HeadTensor& q, const Tensor& out, const GeneratedColumns* columns,
                   Formula formula) const {
    const std::vector<float> got = read_rows(out);
    ErrorBound bound;
    for (const RowPlace& at : places_) {
      const RowReference row =
          attend(q, at, columns != nullptr ? columns->of(at.batch, at.head, at.row, p_) : visible_keys(at.batch));
      for (size_t i = 0; i < row.out.size(); ++i) {
        const size_t element = row_index(at) * row.out.size() + i;
        bound.add(got[element], formula(at, element, row.lse, row.out[i]), formula(at, element, row.lse, row.plain[i]));
      }
    }
    bound.expect_met(what(part));
  }
  void expect_lse(const char* part, const Tensor& lse, const GeneratedColumns* columns) const {
    const std::vector<float> got = read_floats(context_, lse);
    for (const RowPlace& at : places_) {
      const double exact =
          attend(q_, at, columns != nullptr ? columns->of(at.batch, at.head, at.row, p_) : visible_keys(at.batch)).lse;
      const double found = got[row_index(at)];
      if (std::isnan(exact) || std::isinf(exact)) {
        EXPECT_TRUE(std::isnan(exact) ? std::isnan(found) : found == exact) << what(part) << ": " << found;
      } else {
        EXPECT_NEAR(found, exact, 1e-4 * (1.0 + std::abs(exact))) << what(part);
      }
    }
  }

  void dense() {
    if (p_.key_lengths) {
      std::mt19937_64 engine(p_.seed + 5);
      const Tensor host = make_host_tensor({p_.batch}, DType::kI32);
      for (int64_t b = 0; b < p_.batch; ++b) {
        lengths_.push_back(static_cast<int32_t>(engine() % static_cast<uint64_t>(p_.key_tokens + 1)));
        static_cast<int32_t*>(host.data())[b] = lengths_.back();
      }
      options_.key_lengths = context_.to_device(host);
    }
    options_.lse = lse_ = empty_rows();
    out_ = empty_heads();
    ops::attention_into(context_, q_.tensor, k_.tensor, v_.tensor, out_, options_);
    expect_rows("dense", q_, out_, nullptr, [](const RowPlace&, size_t, double, double value) { return value; });
    expect_lse("dense", lse_, nullptr);
  }

  void column_sums() {
    const int64_t groups = (p_.query_tokens + kGroup - 1) / kGroup;
    if (static_cast<double>(p_.batch * p_.heads * groups) * static_cast<double>(p_.key_tokens) > 2e7) return;
    std::vector<float> before = read_floats(context_, lse_);
    for (float& value : before) value += p_.lse_shift;
    ops::AttentionOptions options = options_;
    options.column_lse = upload_rows(before);
    // In one buffer every third time.
    options.lse = p_.seed % 3 == 0 ? options.column_lse : empty_rows();
    options.group_size = kGroup;
    options.column_sums = context_.empty({p_.batch, p_.heads, groups, p_.key_tokens}, DType::kF32);
    const Tensor out = empty_heads();
    ops::attention_into(context_, q_.tensor, k_.tensor, v_.tensor, out, options);
    expect_rows("dense with sums", q_, out, nullptr,
                [](const RowPlace&, size_t, double, double value) { return value; });
    expect_lse("dense with sums", options.lse, nullptr);
    const std::vector<float> got = read_floats(context_, options.column_sums);
    std::mt19937_64 engine(p_.seed + 6);
    for (size_t n = 0; n < std::min<size_t>(places_.size(), 8); ++n) {
      const RowPlace& at = places_[n];
      const int64_t first = at.row / kGroup * kGroup, end = std::min(first + kGroup, p_.query_tokens);
      const auto visible = static_cast<int64_t>(visible_keys(at.batch).size());
      for (int64_t key :
           {int64_t{0}, p_.key_tokens - 1, static_cast<int64_t>(engine() % static_cast<uint64_t>(p_.key_tokens))}) {
        double exact = 0.0;
        for (int64_t row = first; row < end && key < visible; ++row) {
          const double lse = before[row_index({at.batch, at.head, row})];
          if (lse == -kInfinity) continue;
          const float *q = q_.row(at.batch, row, at.head), *k = k_.row(at.batch, key, at.head);
          double dot = 0.0;
          for (int64_t i = 0; i < p_.head_dim; ++i) dot += static_cast<double>(q[i]) * k[i];
          exact += std::exp(dot * scale_ - lse);
        }
        const double found = got[static_cast<size_t>(
            ((at.batch * p_.heads + at.head) * groups + at.row / kGroup) * p_.key_tokens + key)];
        if (std::isnan(exact)) {
          EXPECT_TRUE(std::isnan(found)) << what("column sums");
        } else if (exact < 1e37) {
          EXPECT_NEAR(found, exact, 1e-3 * exact + 1e-30) << what("column sums") << " key " << key;
        }
      }
    }
  }

  void only_columns(const GeneratedColumns& columns) {
    const Tensor out = empty_heads();
    ops::ColumnAttentionOptions options;
    options.lse = empty_rows();
    ops::column_attention_into(context_, q_.tensor, k_.tensor, v_.tensor, columns.set, out, options);
    expect_rows("columns", q_, out, &columns, [](const RowPlace&, size_t, double, double value) { return value; });
    expect_lse("columns", options.lse, &columns);
  }

  void split_and_merge(const GeneratedColumns& columns) {
    // Without lengths: what is split must be the softmax over all keys.
    const Tensor whole = empty_heads(), whole_lse = empty_rows();
    ops::AttentionOptions dense;
    dense.lse = whole_lse;
    ops::attention_into(context_, q_.tensor, k_.tensor, v_.tensor, whole, dense);
    const std::vector<float> output = read_rows(whole), all = read_floats(context_, whole_lse);

    const Tensor rest = empty_heads();
    ops::ColumnAttentionOptions options;
    options.epilogue = ColumnEpilogue::kSplit;
    options.residual = whole;
    options.lse_all = whole_lse;
    options.lse_rest = empty_rows();
    ops::column_attention_into(context_, q_.tensor, k_.tensor, v_.tensor, columns.set, rest, options);
    const std::vector<float> rest_lse = read_floats(context_, options.lse_rest);
    const auto dim = static_cast<size_t>(p_.head_dim);
    const auto keeps_all = [&](const RowPlace& at) {
      return static_cast<int64_t>(columns.of(at.batch, at.head, at.row, p_).size()) == p_.key_tokens;
    };
    expect_rows("split", q_, rest, &columns, [&](const RowPlace& at, size_t element, double lse, double value) {
      if (keeps_all(at)) return 0.0;
      return output[element] - std::exp(std::min(lse - all[element / dim], 0.0)) * value;
    });
    for (const RowPlace& at : places_) {
      const double lse = attend(q_, at, columns.of(at.batch, at.head, at.row, p_)).lse;
      const double left = -std::expm1(std::min(lse - all[row_index(at)], 0.0));
      const double found = rest_lse[row_index(at)];
      if (keeps_all(at)) {
        EXPECT_EQ(found, -kInfinity) << what("split");
      } else if (std::isnan(left)) {
        continue;
      } else if (left > 1e-2) {
        EXPECT_NEAR(found, all[row_index(at)] + std::log(left), 2e-2) << what("split");
      } else {
        // A difference of nearly equal sums: no more than its size is known.
        EXPECT_LE(found, all[row_index(at)] + std::log(2e-2)) << what("split");
        EXPECT_GE(found, all[row_index(at)] + std::log(0.9e-7)) << what("split");
      }
    }

    const HeadTensor later = make_heads(context_, p_, p_.query_tokens, p_.seed * 4 + 3, p_.q_scale);
    const std::vector<float> kept_rest = read_rows(rest);
    options.epilogue = ColumnEpilogue::kMerge;
    options.residual = rest;
    // In place every second time.
    const Tensor merged = p_.seed % 2 == 0 ? rest : empty_heads();
    ops::column_attention_into(context_, later.tensor, k_.tensor, v_.tensor, columns.set, merged, options);
    expect_rows("merge", later, merged, &columns, [&](const RowPlace& at, size_t element, double lse, double value) {
      const double rest_of_row = rest_lse[row_index(at)], base = std::max(lse, rest_of_row);
      if (rest_of_row == -kInfinity && lse == -kInfinity) return 0.0;
      const double total = std::exp(rest_of_row - base) + std::exp(lse - base);
      const double known = rest_of_row == -kInfinity ? 0.0 : std::exp(all[element / dim] - base) * kept_rest[element];
      return (known + (lse == -kInfinity ? 0.0 : std::exp(lse - base) * value)) / total;
    });
  }

  void subtract_and_add(const GeneratedColumns& columns) {
    const HeadTensor residual = make_heads(context_, p_, p_.query_tokens, p_.seed * 4 + 5, 1.0f);
    const std::vector<float> known = read_rows(to_plain(residual));
    ops::ColumnAttentionOptions options;
    options.epilogue = p_.seed % 2 == 0 ? ColumnEpilogue::kAdd : ColumnEpilogue::kSubtract;
    options.residual = residual.tensor;
    const double sign = p_.seed % 2 == 0 ? 1.0 : -1.0;
    const Tensor out = empty_heads();
    ops::column_attention_into(context_, q_.tensor, k_.tensor, v_.tensor, columns.set, out, options);
    expect_rows("add or subtract", q_, out, &columns,
                [&](const RowPlace&, size_t element, double, double value) { return known[element] + sign * value; });
  }
  /// The values of a generated tensor as read_rows takes them.
  Tensor to_plain(const HeadTensor& heads) const {
    const Tensor host = make_host_tensor({p_.batch, p_.query_tokens, p_.heads, p_.head_dim}, DType::kF32);
    std::copy(heads.values.begin(), heads.values.end(), static_cast<float*>(host.data()));
    if (p_.layout != HeadLayout::kHeadMajor) return host;
    const Tensor ordered = make_host_tensor({p_.batch, p_.heads, p_.query_tokens, p_.head_dim}, DType::kF32);
    for (int64_t b = 0; b < p_.batch; ++b) {
      for (int64_t h = 0; h < p_.heads; ++h) {
        for (int64_t i = 0; i < p_.query_tokens; ++i) {
          std::copy_n(heads.row(b, i, h), p_.head_dim,
                      static_cast<float*>(ordered.data()) + static_cast<int64_t>(row_index({b, h, i})) * p_.head_dim);
        }
      }
    }
    return ordered.permute({0, 2, 1, 3});
  }

  const Context& context_;
  const GeneratedAttention p_;
  const double scale_;
  const HeadTensor q_, k_, v_;
  std::vector<RowPlace> places_;
  std::vector<int32_t> lengths_;
  ops::AttentionOptions options_;
  Tensor out_, lse_;
};

class AttentionKernelsTest : public OpTest, public ::testing::WithParamInterface<std::tuple<std::string, uint64_t>> {};

TEST_P(AttentionKernelsTest, GeneratedProblems) {
  const auto& [device, number] = GetParam();
  CHIPMUNK_OPEN_OR_SKIP(device);
  const bool small = device == "cpu";
  for (uint64_t i = 0; i < (small ? 4 : kProblemsPerTest); ++i) {
    const GeneratedAttention problem =
        GeneratedAttention::draw(number * kProblemsPerTest + i, small ? 4e5 : 8e6, small ? 2e6 : 2e9);
    Sequence(context(), problem).run();
    if (HasFailure()) return;
  }
}

/// As a GPU with fewer multiprocessors would launch them.
class FewerMultiprocessorsTest : public OpTest, public ::testing::WithParamInterface<int> {};

TEST_P(FewerMultiprocessorsTest, GeneratedProblems) {
  CHIPMUNK_OPEN_OR_SKIP("cuda");
  open("cuda", 2, GetParam());
  for (uint64_t number = 1000; number < 1006; ++number) {
    Sequence(context(), GeneratedAttention::draw(number, 8e6, 2e9)).run();
    if (HasFailure()) return;
  }
}
INSTANTIATE_TEST_SUITE_P(Gpu, FewerMultiprocessorsTest, ::testing::Values(1, 78, 114, 132));

std::string test_name(const ::testing::TestParamInfo<AttentionKernelsTest::ParamType>& info) {
  return std::get<0>(info.param) + "_" + std::to_string(std::get<1>(info.param));
}
// The CPU shows that the test itself is right.
INSTANTIATE_TEST_SUITE_P(Cpu, AttentionKernelsTest,
                         ::testing::Combine(::testing::Values("cpu"), ::testing::Range<uint64_t>(0, 2)), test_name);
INSTANTIATE_TEST_SUITE_P(Gpu, AttentionKernelsTest,
                         ::testing::Combine(::testing::Values("cuda"), ::testing::Range<uint64_t>(0, 20)), test_name);

}  // namespace
}  // namespace chipmunk::test
