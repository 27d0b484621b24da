#include "support/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/float_formats.h"

namespace chipmunk::test {
namespace {

/// An array's element, or a default where the argument is not given.
double get_or(const Array& array, int64_t index, double otherwise) { return array.empty() ? otherwise : array[index]; }

Reference make_reference(const Dims& shape) { return {Array(shape), Array(shape)}; }

}  // namespace

Array to_array(const Tensor& tensor) {
  if (tensor.empty()) return {};
  Array result(tensor.shape());
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    int64_t rest = i, offset = 0;
    for (int d = tensor.rank() - 1; d >= 0; --d) {
      offset += rest % tensor.dim(d) * tensor.stride(d);
      rest /= tensor.dim(d);
    }
    result[i] = load_as_float(tensor.data(), tensor.dtype(), offset);
  }
  return result;
}

double reference_activation(Activation activation, double x) {
  switch (activation) {
    case Activation::kNone: return x;
    // (1 + tanh u) / 2 = 1 / (1 + e^-2u): without the cancellation near -1.
    case Activation::kGeluTanh: return x / (1.0 + std::exp(-2.0 * std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::kGeluErf: return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::kQuickGelu: return x / (1.0 + std::exp(-1.702 * x));
    case Activation::kSilu: return x / (1.0 + std::exp(-x));
    case Activation::kRelu: return x < 0.0 ? 0.0 : x;
  }
  return std::numeric_limits<double>::quiet_NaN();
}

Reference reference_linear(const LinearArguments& a) {
  const int64_t batch = a.x.dim(0), rows = a.x.dim(1), depth = a.x.dim(2), features = a.weight.dim(0);
  Reference result = make_reference({batch, rows, features});
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t t = 0; t < rows; ++t) {
      for (int64_t n = 0; n < features; ++n) {
        double sum = get_or(a.bias, n, 0.0), magnitude = std::abs(sum);
        for (int64_t k = 0; k < depth; ++k) {
          const double product = a.x[(b * rows + t) * depth + k] * a.weight[n * depth + k];
          sum += product;
          magnitude += std::abs(product);
        }
        const int64_t i = (b * rows + t) * features + n;
        const double gate = get_or(a.gate, b * features + n, 1.0), residual = get_or(a.residual, i, 0.0);
        const double addend = get_or(a.addend, i, 0.0);
        result.value[i] = residual + gate * (reference_activation(a.activation, sum) + addend);
        // No activation has a slope above 1.13; the second half is for its own rounding.
        result.magnitude[i] = std::abs(residual) + std::abs(gate) * (2.0 * magnitude + std::abs(addend));
      }
    }
  }
  return result;
}

AttentionReference reference_attention(const AttentionArguments& a) {
  const int64_t batch = a.q.dim(0), n = a.q.dim(1), heads = a.q.dim(2), dim = a.q.dim(3);
  const int64_t m = a.k.dim(1), kv_heads = a.k.dim(2);
  AttentionReference result{make_reference(a.q.shape), make_reference({batch, heads, n})};
  std::vector<double> scores(static_cast<size_t>(m));
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t i = 0; i < n; ++i) {
        const double* q = &a.q.values[static_cast<size_t>(((b * n + i) * heads + h) * dim)];
        int64_t visible = a.key_lengths.empty() ? m : std::min(m, static_cast<int64_t>(a.key_lengths[b]));
        if (a.causal) visible = std::clamp<int64_t>(i + m - n + 1, 0, visible);
        const auto kv = [&](int64_t j) { return ((b * m + j) * kv_heads + h / (heads / kv_heads)) * dim; };
        double maximum = -std::numeric_limits<double>::infinity(), score_magnitude = 0.0;
        for (int64_t j = 0; j < visible; ++j) {
          double score = 0.0, magnitude = 0.0;
          for (int64_t c = 0; c < dim; ++c) {
            score += a.scale * q[c] * a.k[kv(j) + c];
            magnitude += std::abs(a.scale * q[c] * a.k[kv(j) + c]);
          }
          const double bias = get_or(a.relative_bias, h * (n + m - 1) + j - i + n - 1, 0.0);
          scores[static_cast<size_t>(j)] = score + bias;
          if (std::isfinite(bias)) score_magnitude = std::max(score_magnitude, magnitude + std::abs(bias));
          maximum = std::max(maximum, score + bias);
        }
        const int64_t row = (b * heads + h) * n + i;
        const bool sees_nothing = maximum == -std::numeric_limits<double>::infinity();
        double total = 0.0;
        for (int64_t j = 0; j < visible && !sees_nothing; ++j)
          total += std::exp(scores[static_cast<size_t>(j)] - maximum);
        result.lse.value[row] = sees_nothing ? maximum : maximum + std::log(total);
        result.lse.magnitude[row] = 1.0 + score_magnitude;
        for (int64_t c = 0; c < dim; ++c) {
          double sum = 0.0, magnitude = 0.0;
          for (int64_t j = 0; j < visible && !sees_nothing; ++j) {
            const double product = std::exp(scores[static_cast<size_t>(j)] - maximum) / total * a.v[kv(j) + c];
            sum += product;
            magnitude += std::abs(product);
          }
          const int64_t at = ((b * n + i) * heads + h) * dim + c;
          result.out.value[at] = sum;
          // An error of a score changes its probability in proportion, above and below the fraction line.
          result.out.magnitude[at] = magnitude * (1.0 + 2.0 * score_magnitude);
        }
      }
    }
  }
  return result;
}

Reference reference_layer_norm(const Array& x, const Array& weight, const Array& bias, const Array& scale,
                               const Array& shift, double epsilon) {
  const int64_t batch = x.dim(0), rows = x.dim(1), channels = x.dim(2);
  Reference result = make_reference(x.shape);
  for (int64_t r = 0; r < batch * rows; ++r) {
    double mean = 0.0, absolute = 0.0, variance = 0.0;
    for (int64_t c = 0; c < channels; ++c) {
      mean += x[r * channels + c] / static_cast<double>(channels);
      absolute += std::abs(x[r * channels + c]) / static_cast<double>(channels);
    }
    for (int64_t c = 0; c < channels; ++c) variance += std::pow(x[r * channels + c] - mean, 2);
    const double inverse = 1.0 / std::sqrt(variance / static_cast<double>(channels) + epsilon);
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t i = r * channels + c, modulation = r / rows * channels + c;
      const double w = get_or(weight, c, 1.0), offset = get_or(bias, c, 0.0);
      const double factor = 1.0 + get_or(scale, modulation, 0.0), addend = get_or(shift, modulation, 0.0);
      result.value[i] = ((x[i] - mean) * inverse * w + offset) * factor + addend;
      result.magnitude[i] =
          ((std::abs(x[i]) + absolute) * inverse * std::abs(w) + std::abs(offset)) * (1.0 + std::abs(factor)) +
          std::abs(addend);
    }
  }
  return result;
}

Reference reference_rms_norm(const Array& x, const Array& weight, double epsilon) {
  const int64_t channels = x.dim(x.shape.rank() - 1);
  Reference result = make_reference(x.shape);
  for (int64_t r = 0; r * channels < static_cast<int64_t>(x.values.size()); ++r) {
    double square = 0.0;
    for (int64_t c = 0; c < channels; ++c) square += x[r * channels + c] * x[r * channels + c];
    const double inverse = 1.0 / std::sqrt(square / static_cast<double>(channels) + epsilon);
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t i = r * channels + c;
      result.value[i] = x[i] * inverse * get_or(weight, c, 1.0);
      result.magnitude[i] = std::abs(result.value[i]);
    }
  }
  return result;
}

Reference reference_norm_rope(const Array& x, const Array& weight, const Array& cos, const Array& sin, double epsilon) {
  const int64_t tokens = x.dim(1), heads = x.dim(2), dim = x.dim(3);
  Reference result = weight.empty() ? Reference{x, x} : reference_rms_norm(x, weight, epsilon);
  for (double& magnitude : result.magnitude.values) magnitude = std::abs(magnitude);
  if (cos.empty()) return result;
  for (int64_t i = 0; i < static_cast<int64_t>(x.values.size()); i += 2) {
    const int64_t angle = i / (heads * dim) % tokens * (dim / 2) + i % dim / 2;
    const double a = result.value[i], b = result.value[i + 1];
    result.value[i] = a * cos[angle] - b * sin[angle];
    result.value[i + 1] = a * sin[angle] + b * cos[angle];
    result.magnitude[i] = std::abs(a * cos[angle]) + std::abs(b * sin[angle]);
    result.magnitude[i + 1] = std::abs(a * sin[angle]) + std::abs(b * cos[angle]);
  }
  return result;
}

Reference reference_group_norm(const Array& x, const Array& weight, const Array& bias, int64_t groups, double epsilon,
                               Activation activation) {
  const int64_t batch = x.dim(0), pixels = x.dim(1) * x.dim(2), channels = x.dim(3), size = channels / groups;
  Reference result = make_reference(x.shape);
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t g = 0; g < groups; ++g) {
      double mean = 0.0, absolute = 0.0, variance = 0.0;
      const auto for_each = [&](const auto& body) {
        for (int64_t p = 0; p < pixels; ++p) {
          for (int64_t c = g * size; c < (g + 1) * size; ++c) body((b * pixels + p) * channels + c, c);
        }
      };
      const double count = static_cast<double>(pixels * size);
      for_each([&](int64_t i, int64_t) { mean += x[i] / count, absolute += std::abs(x[i]) / count; });
      for_each([&](int64_t i, int64_t) { variance += (x[i] - mean) * (x[i] - mean) / count; });
      const double inverse = 1.0 / std::sqrt(variance + epsilon);
      for_each([&](int64_t i, int64_t c) {
        result.value[i] = reference_activation(activation, (x[i] - mean) * inverse * weight[c] + bias[c]);
        result.magnitude[i] = 2.0 * ((std::abs(x[i]) + absolute) * inverse * std::abs(weight[c]) + std::abs(bias[c]));
      });
    }
  }
  return result;
}

Reference reference_conv2d(const ConvArguments& a) {
  const int64_t batch = a.x.dim(0), height = a.x.dim(1), width = a.x.dim(2), channels = a.x.dim(3);
  const int64_t features = a.weight.dim(0), kernel_height = a.weight.dim(1), kernel_width = a.weight.dim(2);
  const int64_t out_height = (height + a.pad_top + a.pad_bottom - kernel_height) / a.stride + 1;
  const int64_t out_width = (width + a.pad_left + a.pad_right - kernel_width) / a.stride + 1;
  Reference result = make_reference({batch, out_height, out_width, features});
  for (int64_t i = 0; i < static_cast<int64_t>(result.value.values.size()); ++i) {
    const int64_t o = i % features, column = i / features % out_width, row = i / features / out_width % out_height;
    const int64_t b = i / features / out_width / out_height;
    double sum = get_or(a.bias, o, 0.0) + get_or(a.residual, i, 0.0);
    double magnitude = std::abs(get_or(a.bias, o, 0.0)) + std::abs(get_or(a.residual, i, 0.0));
    for (int64_t ky = 0; ky < kernel_height; ++ky) {
      for (int64_t kx = 0; kx < kernel_width; ++kx) {
        const int64_t y = row * a.stride + ky - a.pad_top, x = column * a.stride + kx - a.pad_left;
        if (y < 0 || y >= height || x < 0 || x >= width) continue;
        for (int64_t c = 0; c < channels; ++c) {
          const double product = a.x[((b * height + y) * width + x) * channels + c] *
                                 a.weight[((o * kernel_height + ky) * kernel_width + kx) * channels + c];
          sum += product;
          magnitude += std::abs(product);
        }
      }
    }
    result.value[i] = sum;
    result.magnitude[i] = magnitude;
  }
  return result;
}

Reference reference_timestep_embedding(const Array& arguments, int64_t channels, double max_period) {
  const int64_t batch = arguments.dim(0), half = channels / 2;
  Reference result = make_reference({batch, channels});
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t i = 0; i < half; ++i) {
      const double frequency = std::exp(-std::log(max_period) * static_cast<double>(i) / static_cast<double>(half));
      const double angle = arguments[b] * frequency;
      result.value[b * channels + i] = std::cos(angle);
      result.value[b * channels + half + i] = std::sin(angle);
      // The exponent, up to ln(max_period), is rounded as well: its error scales the angle.
      const double magnitude = 1.0 + std::abs(angle) * (2.0 + std::log(max_period));
      result.magnitude[b * channels + i] = result.magnitude[b * channels + half + i] = magnitude;
    }
  }
  return result;
}

}  // namespace chipmunk::test
