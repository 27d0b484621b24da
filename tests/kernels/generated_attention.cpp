#include "kernels/generated_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "core/float_formats.h"
#include "kernels/generated_values.h"

namespace chipmunk::test {
namespace {

/// A block that holds [B, N, H, D] as the layout says, and the view of it.
struct Place {
  Dims block;
  int permuted = 0;  // heads before tokens
  int64_t first_column = 0;
};

Place place_heads(const GeneratedAttention& problem, int64_t tokens) {
  const int64_t b = problem.batch, h = problem.heads, d = problem.head_dim;
  switch (problem.layout) {
    case HeadLayout::kHeadMajor: return {{b, h, tokens, d}, 1, 0};
    case HeadLayout::kOneBuffer: return {{b, tokens, 3 * h * d}, 0, h * d};
    case HeadLayout::kPaddedRows: return {{b, tokens, h * d + 24}, 0, 8};
    case HeadLayout::kTokenMajor: break;
  }
  return {{b, tokens, h * d}, 0, 0};
}

Tensor view_heads(const Tensor& block, const Place& place, const GeneratedAttention& problem, int64_t tokens) {
  if (place.permuted != 0) return block.permute({0, 2, 1, 3});
  const int64_t width = problem.heads * problem.head_dim;
  const Tensor columns = block.slice(2, place.first_column, place.first_column + width);
  const Dims shape = {problem.batch, tokens, problem.heads, problem.head_dim};
  const Dims strides = {columns.stride(0), columns.stride(1), problem.head_dim, 1};
  const auto offset =
      static_cast<size_t>(static_cast<char*>(columns.data()) - static_cast<char*>(columns.storage()->data()));
  return Tensor(columns.storage(), offset, columns.dtype(), shape, strides);
}

/// The dense host block's element of a head row.
int64_t block_offset(const Place& place, const GeneratedAttention& problem, int64_t tokens, int64_t batch,
                     int64_t token, int64_t head) {
  if (place.permuted != 0) return ((batch * problem.heads + head) * tokens + token) * problem.head_dim;
  return (batch * tokens + token) * place.block[2] + place.first_column + head * problem.head_dim;
}

}  // namespace

GeneratedAttention GeneratedAttention::draw(uint64_t number, double max_elements, double max_scores) {
  std::mt19937_64 engine(number * 7919 + 17);
  GeneratedAttention p{};
  p.seed = number;
  p.head_dim = choose<int64_t>(engine, {64, 128, 128, 128});
  p.batch = choose<int64_t>(engine, {1, 1, 1, 2, 3});
  p.heads = log_uniform(engine, 1, 40);
  p.query_tokens = log_uniform(engine, 1, 20000);
  p.key_tokens = engine() % 2 == 0 ? p.query_tokens : log_uniform(engine, 1, 20000);
  const auto too_large = [&] {
    const double rows = static_cast<double>(p.batch * p.heads);
    return rows * static_cast<double>(std::max(p.query_tokens, p.key_tokens) * p.head_dim) > max_elements ||
           rows * static_cast<double>(p.query_tokens) * static_cast<double>(p.key_tokens) > max_scores;
  };
  while (too_large()) {
    if (p.heads > 1) {
      p.heads = (p.heads + 1) / 2;
    } else if (p.batch > 1) {
      p.batch = 1;
    } else {
      p.query_tokens = std::max<int64_t>(p.query_tokens * 3 / 4, 1);
      p.key_tokens = std::max<int64_t>(p.key_tokens * 3 / 4, 1);
    }
  }
  p.layout = choose(engine,
                    {HeadLayout::kTokenMajor, HeadLayout::kHeadMajor, HeadLayout::kOneBuffer, HeadLayout::kPaddedRows});
  p.kept_keys = choose(engine, {KeptKeys::kScattered, KeptKeys::kClustered, KeptKeys::kLocal});
  p.q_scale = choose(engine, {1.0f, 1.0f, 0.01f, 4.0f, 20.0f});
  p.lse_shift = choose(engine, {0.0f, 0.0f, 20.0f, -20.0f, 3.0f});
  p.key_lengths = engine() % 4 == 0;
  p.nan_in_query = engine() % 16 == 0;
  p.nan_in_key = engine() % 32 == 0;
  return p;
}

std::string GeneratedAttention::describe() const {
  return "problem " + std::to_string(seed) + ": B " + std::to_string(batch) + " H " + std::to_string(heads) + " N " +
         std::to_string(query_tokens) + " M " + std::to_string(key_tokens) + " D " + std::to_string(head_dim) +
         " layout " + std::to_string(static_cast<int>(layout)) + " keys " +
         std::to_string(static_cast<int>(kept_keys)) + " q scale " + std::to_string(q_scale) + " lse shift " +
         std::to_string(lse_shift) + (key_lengths ? " lengths" : "") + (nan_in_query ? " NaN in q" : "") +
         (nan_in_key ? " NaN in k" : "");
}

HeadTensor make_heads(const Context& context, const GeneratedAttention& problem, int64_t tokens, uint64_t seed,
                      float scale, int64_t nan_token) {
  HeadTensor result{{}, {}, tokens, problem.heads, problem.head_dim};
  const Place place = place_heads(problem, tokens);
  const DType dtype = context.activation_dtype();
  const Tensor host = make_host_tensor(place.block, dtype);
  // What lies between the rows must not be read.
  if (dtype == DType::kF32) {
    std::fill_n(static_cast<float*>(host.data()), host.numel(), std::numeric_limits<float>::quiet_NaN());
  } else {
    std::fill_n(static_cast<uint16_t*>(host.data()), host.numel(), uint16_t{0x7fc0});
  }
  result.values.resize(static_cast<size_t>(problem.batch * tokens * problem.heads * problem.head_dim));
  size_t at = 0;
  for (int64_t b = 0; b < problem.batch; ++b) {
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t h = 0; h < problem.heads; ++h) {
        const int64_t offset = block_offset(place, problem, tokens, b, t, h);
        for (int64_t i = 0; i < problem.head_dim; ++i, ++at) {
          float value = round_to_bf16(scattered_normal(at, seed) * scale);
          if (t == nan_token && i == 0) value = std::numeric_limits<float>::quiet_NaN();
          result.values[at] = value;
          if (dtype == DType::kF32) {
            static_cast<float*>(host.data())[offset + i] = value;
          } else {
            static_cast<uint16_t*>(host.data())[offset + i] = float_to_bf16(value);
          }
        }
      }
    }
  }
  result.tensor = view_heads(context.to_device(host), place, problem, tokens);
  return result;
}

std::vector<float> read_heads(const Context& context, const Tensor& tensor) { return read_floats(context, tensor); }

GeneratedColumns make_columns(const Context& context, const GeneratedAttention& problem, int64_t group_size) {
  std::mt19937_64 engine(problem.seed + 99);
  const int64_t m = problem.key_tokens;
  const int64_t groups = (problem.query_tokens + group_size - 1) / group_size;
  const int64_t lists = problem.batch * problem.heads * groups;
  // Lists longer than this would not differ in kind.
  const int64_t capacity = std::min<int64_t>(m, std::max<int64_t>(1, std::min<int64_t>(4096, 8000000 / lists)));
  GeneratedColumns result;
  std::vector<int32_t> indices(static_cast<size_t>(lists * capacity), -1), counts;
  std::vector<int32_t> all(static_cast<size_t>(m));
  for (int64_t i = 0; i < m; ++i) all[static_cast<size_t>(i)] = static_cast<int32_t>(i);
  for (int64_t list = 0; list < lists; ++list) {
    int64_t count = 0;
    switch (engine() % 8) {
      case 0: count = 0; break;
      case 1: count = m; break;
      case 2: count = std::min<int64_t>(capacity, 112 * static_cast<int64_t>(engine() % 4)); break;
      case 3: count = 1; break;
      default: count = log_uniform(engine, 1, capacity);
    }
    std::vector<int32_t> ids;
    if (count == m) {
      ids = all;
    } else if (problem.kept_keys == KeptKeys::kLocal) {
      const auto first = static_cast<int32_t>(engine() % static_cast<uint64_t>(m - count + 1));
      ids.assign(all.begin() + first, all.begin() + first + count);
    } else {
      // A step that is coprime to m visits every key once; small steps make clusters.
      uint64_t step = problem.kept_keys == KeptKeys::kClustered ? 3 : engine() % static_cast<uint64_t>(m) + 1;
      while (std::gcd(step, static_cast<uint64_t>(m)) != 1) ++step;
      const uint64_t start = engine() % static_cast<uint64_t>(m);
      for (int64_t i = 0; i < count; ++i) {
        ids.push_back(static_cast<int32_t>((start + static_cast<uint64_t>(i) * step) % static_cast<uint64_t>(m)));
      }
      std::sort(ids.begin(), ids.end());
    }
    counts.push_back(static_cast<int32_t>(ids.size()));
    if (static_cast<int64_t>(ids.size()) <= capacity) {
      std::copy(ids.begin(), ids.end(), indices.begin() + list * capacity);
    }
    result.ids.push_back(std::move(ids));
  }
  const auto upload = [&](const std::vector<int32_t>& values, const Dims& shape) {
    const Tensor host = make_host_tensor(shape, DType::kI32);
    std::copy(values.begin(), values.end(), static_cast<int32_t*>(host.data()));
    return context.to_device(host);
  };
  result.set = {upload(indices, {problem.batch, problem.heads, groups, capacity}),
                upload(counts, {problem.batch, problem.heads, groups}), group_size};
  return result;
}

const std::vector<int32_t>& GeneratedColumns::of(int64_t batch, int64_t head, int64_t row,
                                                 const GeneratedAttention& problem) const {
  const int64_t groups = (problem.query_tokens + set.group_size - 1) / set.group_size;
  return ids[static_cast<size_t>((batch * problem.heads + head) * groups + row / set.group_size)];
}

RowReference attend_row(const float* q, const HeadTensor& k, const HeadTensor& v, int64_t batch, int64_t head,
                        const std::vector<int32_t>& keys, double scale) {
  const auto dim = static_cast<size_t>(k.head_dim);
  std::vector<double> scores(keys.size());
  double largest = -std::numeric_limits<double>::infinity();
  for (size_t j = 0; j < keys.size(); ++j) {
    const float* key = k.row(batch, keys[j], head);
    double dot = 0.0;
    for (size_t i = 0; i < dim; ++i) dot += static_cast<double>(q[i]) * key[i];
    scores[j] = dot * scale;
    if (!(scores[j] <= largest)) largest = scores[j];
  }
  RowReference result{std::vector<double>(dim), std::vector<double>(dim), 0.0};
  double sum = 0.0, plain_sum = 0.0;
  for (size_t j = 0; j < keys.size(); ++j) {
    const double p = std::exp(scores[j] - largest);
    const double rounded = round_to_bf16(static_cast<float>(p));
    sum += p;
    plain_sum += static_cast<float>(p);
    const float* value = v.row(batch, keys[j], head);
    for (size_t i = 0; i < dim; ++i) {
      result.out[i] += p * value[i];
      result.plain[i] += rounded * value[i];
    }
  }
  for (size_t i = 0; i < dim; ++i) {
    result.out[i] = keys.empty() ? 0.0 : result.out[i] / sum;
    result.plain[i] = keys.empty() ? 0.0 : result.plain[i] / plain_sum;
  }
  result.lse = keys.empty() ? -std::numeric_limits<double>::infinity() : largest + std::log(sum);
  return result;
}

}  // namespace chipmunk::test
