#include "support/column_reference.h"

#include <algorithm>
#include <cmath>

namespace chipmunk::test {
namespace {

/// One head's chosen tokens of a [B, T, H, D] array, as [1, tokens, 1, D].
Array gather(const Array& x, int64_t b, int64_t h, const std::vector<int32_t>& tokens) {
  const int64_t dim = x.dim(3);
  Array result(Dims{1, static_cast<int64_t>(tokens.size()), 1, dim});
  for (size_t t = 0; t < tokens.size(); ++t) {
    for (int64_t c = 0; c < dim; ++c) {
      result[static_cast<int64_t>(t) * dim + c] = x[((b * x.dim(1) + tokens[t]) * x.dim(2) + h) * dim + c];
    }
  }
  return result;
}

std::vector<int32_t> range(int64_t begin, int64_t end) {
  std::vector<int32_t> values;
  for (int64_t i = begin; i < end; ++i) values.push_back(static_cast<int32_t>(i));
  return values;
}

Reference make_reference(const Dims& shape) { return {Array(shape), Array(shape)}; }

}  // namespace

std::vector<int32_t> KeptColumns::ids(int64_t row) const {
  std::vector<int32_t> result;
  for (int64_t j = 0; j < columns(); ++j) {
    if (has(row, j)) result.push_back(static_cast<int32_t>(j));
  }
  return result;
}

AttentionReference reference_column_attention(const Array& q, const Array& k, const Array& v,
                                              const KeptColumns& columns, int64_t group_size, double scale) {
  const int64_t batch = q.dim(0), n = q.dim(1), heads = q.dim(2), dim = q.dim(3);
  const int64_t groups = (n + group_size - 1) / group_size;
  AttentionReference result{make_reference(q.shape), make_reference({batch, heads, n})};
  for (int64_t row = 0; row < batch * heads * groups; ++row) {
    const int64_t b = row / groups / heads, h = row / groups % heads, first = row % groups * group_size;
    const std::vector<int32_t> queries = range(first, std::min(first + group_size, n)), keys = columns.ids(row);
    const AttentionReference part = reference_attention(
        {gather(q, b, h, queries), gather(k, b, h, keys), gather(v, b, h, keys), {}, {}, scale, false});
    for (int64_t i = 0; i < static_cast<int64_t>(queries.size()); ++i) {
      const int64_t lse_at = (b * heads + h) * n + first + i;
      result.lse.value[lse_at] = part.lse.value[i];
      result.lse.magnitude[lse_at] = part.lse.magnitude[i];
      for (int64_t c = 0; c < dim; ++c) {
        const int64_t at = ((b * n + first + i) * heads + h) * dim + c;
        result.out.value[at] = part.out.value[i * dim + c];
        result.out.magnitude[at] = part.out.magnitude[i * dim + c];
      }
    }
  }
  return result;
}

Reference reference_column_sums(const Array& q, const Array& k, const Array& lse, int64_t group_size, double scale) {
  const int64_t batch = q.dim(0), n = q.dim(1), heads = q.dim(2), dim = q.dim(3), m = k.dim(1);
  const int64_t groups = (n + group_size - 1) / group_size;
  Reference result = make_reference({batch, heads, groups, m});
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t i = 0; i < n; ++i) {
        const double normaliser = lse[(b * heads + h) * n + i];
        if (std::isinf(normaliser)) continue;
        for (int64_t j = 0; j < m; ++j) {
          double score = 0.0, magnitude = 0.0;
          for (int64_t c = 0; c < dim; ++c) {
            const double product =
                scale * q[((b * n + i) * heads + h) * dim + c] * k[((b * m + j) * heads + h) * dim + c];
            score += product;
            magnitude += std::abs(product);
          }
          const int64_t at = ((b * heads + h) * groups + i / group_size) * m + j;
          const double p = std::exp(score - normaliser);
          result.value[at] += p;
          result.magnitude[at] += p * (1.0 + magnitude + std::abs(normaliser));
        }
      }
    }
  }
  return result;
}

ColumnMlpReference reference_column_mlp(const Array& x, const Array& weight1, const Array& bias1, Activation activation,
                                        const Array& weight2, const KeptColumns& features, int64_t block_rows,
                                        const Array& activations, const Array& out) {
  const int64_t batch = x.dim(0), rows = x.dim(1), channels = x.dim(2);
  const int64_t num_features = weight1.dim(0), out_channels = weight2.dim(1);
  const int64_t blocks = (rows + block_rows - 1) / block_rows;
  ColumnMlpReference result{{activations, Array(activations.shape)}, {out, Array(out.shape)}};
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t t = 0; t < rows; ++t) {
      const int64_t token = b * rows + t;
      for (int32_t f : features.ids(b * blocks + t / block_rows)) {
        double sum = bias1.empty() ? 0.0 : bias1[f], magnitude = std::abs(sum);
        for (int64_t c = 0; c < channels; ++c) {
          sum += x[token * channels + c] * weight1[f * channels + c];
          magnitude += std::abs(x[token * channels + c] * weight1[f * channels + c]);
        }
        const double fresh = reference_activation(activation, sum);
        const double difference = fresh - activations[token * num_features + f];
        result.activations.value[token * num_features + f] = fresh;
        result.activations.magnitude[token * num_features + f] = magnitude;
        for (int64_t c = 0; c < out_channels; ++c) {
          const double w = weight2[f * out_channels + c];
          result.out.value[token * out_channels + c] += difference * w;
          result.out.magnitude[token * out_channels + c] += (std::abs(difference) + magnitude) * std::abs(w);
        }
      }
    }
  }
  return result;
}

}  // namespace chipmunk::test
