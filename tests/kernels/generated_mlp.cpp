#include "kernels/generated_mlp.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/float_formats.h"
#include "kernels/generated_values.h"

namespace chipmunk::test {
namespace {

/// A quiet NaN that arithmetic does not make: no result is mistaken for it.
constexpr uint16_t kUntouched = 0x7fd5;

void fill_untouched(const Tensor& host) {
  if (host.dtype() == DType::kF32) {
    std::fill_n(static_cast<uint32_t*>(host.data()), host.numel(), uint32_t{kUntouched} << 16);
  } else {
    std::fill_n(static_cast<uint16_t*>(host.data()), host.numel(), kUntouched);
  }
}

void store(const Tensor& host, int64_t element, float value) {
  if (host.dtype() == DType::kF32) {
    static_cast<float*>(host.data())[element] = round_to_bf16(value);
  } else {
    static_cast<uint16_t*>(host.data())[element] = float_to_bf16(value);
  }
}

/// A step that is coprime to n visits all below n once.
uint64_t coprime_step(std::mt19937_64& engine, uint64_t n) {
  uint64_t step = engine() % n + 1;
  while (std::gcd(step, n) != 1) ++step;
  return step;
}

}  // namespace

GeneratedMlp GeneratedMlp::draw(uint64_t number, double max_elements) {
  std::mt19937_64 engine(number * 7919 + 29);
  const bool hopper = number % 8 < 5;
  GeneratedMlp p{};
  p.seed = number;
  p.batch = choose<int64_t>(engine, {1, 1, 1, 2, 3});
  p.tokens = log_uniform(engine, 1, 3000);
  p.features = log_uniform(engine, 1, 6000);
  const auto multiple = choose<int64_t>(engine, {1, 1, 64, 256});
  p.features = (p.features + multiple - 1) / multiple * multiple;
  if (hopper) {
    p.channels = 64 * log_uniform(engine, 1, 16);
    p.out_channels = 256 * log_uniform(engine, 1, 5);
    p.block_rows = 128;
    p.activation = choose(engine, {Activation::kGeluTanh, Activation::kGeluTanh, Activation::kSilu});
    p.dense_tokens = true;
    p.weight_dtype = DType::kBF16;
    p.row_padding = choose<int64_t>(engine, {0, 8, 72});
  } else {
    p.channels = log_uniform(engine, 1, 700);
    p.out_channels = log_uniform(engine, 1, 700);
    // Half of them as the copies of 16 bytes want it.
    const auto unit = choose<int64_t>(engine, {1, 8});
    p.channels = (p.channels + unit - 1) / unit * unit;
    p.out_channels = (p.out_channels + unit - 1) / unit * unit;
    p.block_rows = choose<int64_t>(engine, {128, 128, 64, 16, 200, 512});
    p.activation = choose(engine, {Activation::kGeluTanh, Activation::kSilu, Activation::kNone});
    p.dense_tokens = engine() % 2 == 0;
    p.weight_dtype = choose(engine, {DType::kBF16, DType::kBF16, DType::kF32});
    p.row_padding = choose<int64_t>(engine, {0, 8, 5});
  }
  const auto too_large = [&] {
    const double rows = static_cast<double>(p.batch * p.tokens), features = static_cast<double>(p.features);
    const auto columns = static_cast<double>(std::max(p.channels, p.out_channels));
    return rows * std::max(features, columns) > max_elements || features * columns > max_elements;
  };
  while (too_large()) {
    if (p.features > 200) {
      p.features = p.features * 3 / 4;
    } else if (p.tokens > 1) {
      p.tokens = p.tokens * 3 / 4;
    } else {
      p.features = p.features * 3 / 4;
    }
  }
  p.bias = engine() % 4 != 0;
  p.weight_scale = choose(engine, {1.0f, 1.0f, 0.05f, 4.0f});
  p.steps = engine() % 4 == 0 ? static_cast<int>(3 + engine() % 4) : 1;
  return p;
}

std::string GeneratedMlp::describe() const {
  return "problem " + std::to_string(seed) + ": B " + std::to_string(batch) + " T " + std::to_string(tokens) + " C " +
         std::to_string(channels) + " F " + std::to_string(features) + " C_out " + std::to_string(out_channels) +
         " blocks of " + std::to_string(block_rows) + " activation " + std::to_string(static_cast<int>(activation)) +
         (dense_tokens ? " dense tokens" : " dense features") + (bias ? " bias" : "") + " weight dtype " +
         std::to_string(static_cast<int>(weight_dtype)) + " padding " + std::to_string(row_padding) + " weight scale " +
         std::to_string(weight_scale) + " steps " + std::to_string(steps);
}

RowTensor make_rows(const Context& context, const Dims& shape, int64_t padding, DType dtype, uint64_t seed,
                    float scale) {
  const int64_t batch = shape[0], rows = shape[1], columns = shape[2];
  RowTensor result{{}, {}, rows, columns};
  // A row between samples, too.
  const Tensor host = make_host_tensor({batch, rows + (padding > 0 ? 1 : 0), columns + padding}, dtype);
  fill_untouched(host);
  result.values.resize(static_cast<size_t>(batch * rows * columns));
  size_t at = 0;
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c, ++at) {
        result.values[at] = round_to_bf16(scattered_normal(at, seed) * scale);
        store(host, (b * host.dim(1) + r) * host.dim(2) + c, result.values[at]);
      }
    }
  }
  result.tensor = context.to_device(host).slice(1, 0, rows).slice(2, 0, columns);
  return result;
}

UpdatedTensor make_activations(const Context& context, const GeneratedMlp& p) {
  const int64_t rows = p.dense_tokens ? p.features : p.tokens, columns = p.dense_tokens ? p.tokens : p.features;
  const int64_t row_stride = (columns + 7) / 8 * 8 + 8;
  const Tensor host = make_host_tensor({p.batch + 2, rows, row_stride}, context.activation_dtype());
  fill_untouched(host);
  uint64_t at = 0;
  for (int64_t b = 1; b <= p.batch; ++b) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        store(host, (b * rows + r) * row_stride + c, scattered_normal(at++, p.seed * 16 + 4));
      }
    }
  }
  const Tensor block = context.to_device(host), inner = block.slice(0, 1, p.batch + 1).slice(2, 0, columns);
  return {block, p.dense_tokens ? inner.permute({0, 2, 1}) : inner};
}

UpdatedTensor make_out(const Context& context, const GeneratedMlp& p) {
  const Tensor host = make_host_tensor({p.batch + 2, p.tokens, p.out_channels}, context.activation_dtype());
  fill_untouched(host);
  const int64_t sample = p.tokens * p.out_channels;
  for (int64_t i = 0; i < p.batch * sample; ++i) {
    store(host, sample + i, scattered_normal(static_cast<uint64_t>(i), p.seed * 16 + 5));
  }
  const Tensor block = context.to_device(host);
  return {block, block.slice(0, 1, p.batch + 1)};
}

GeneratedFeatures make_features(const Context& context, const GeneratedMlp& p, uint64_t seed) {
  std::mt19937_64 engine(seed);
  const int64_t lists = p.batch * p.blocks();
  GeneratedFeatures result;
  size_t longest = 0;
  for (int64_t list = 0; list < lists; ++list) {
    int64_t count = 0;
    switch (engine() % 8) {
      case 0: count = 0; break;
      case 1: count = p.features; break;
      // Around the widths of tiles and stages.
      case 2: count = choose<int64_t>(engine, {1, 63, 64, 65, 128, 255, 256, 257, 512, 513}); break;
      case 3: count = p.features * 3 / 10; break;
      default: count = log_uniform(engine, 1, p.features);
    }
    count = std::min(count, p.features);
    std::vector<int32_t> ids;
    const auto n = static_cast<uint64_t>(p.features);
    const uint64_t step = engine() % 4 == 0 ? 1 : coprime_step(engine, n), start = engine() % n;
    for (int64_t i = 0; i < count; ++i) {
      ids.push_back(static_cast<int32_t>((start + static_cast<uint64_t>(i) * step) % n));
    }
    std::sort(ids.begin(), ids.end());
    if (count < p.features) longest = std::max(longest, ids.size());
    result.ids.push_back(std::move(ids));
  }
  // Room that nobody needs, every second time; a list with every feature is not read.
  const int64_t capacity = std::min(static_cast<int64_t>(longest + seed % 2 * 3), p.features);
  const Tensor indices = make_host_tensor({p.batch, p.blocks(), capacity}, DType::kI32);
  const Tensor counts = make_host_tensor({p.batch, p.blocks()}, DType::kI32);
  std::fill_n(static_cast<int32_t*>(indices.data()), indices.numel(), -1);
  for (size_t list = 0; list < result.ids.size(); ++list) {
    const std::vector<int32_t>& ids = result.ids[list];
    static_cast<int32_t*>(counts.data())[list] = static_cast<int32_t>(ids.size());
    if (static_cast<int64_t>(ids.size()) == p.features) continue;
    std::copy(ids.begin(), ids.end(), static_cast<int32_t*>(indices.data()) + static_cast<int64_t>(list) * capacity);
  }
  result.set = {context.to_device(indices), context.to_device(counts), p.block_rows};
  return result;
}

}  // namespace chipmunk::test
