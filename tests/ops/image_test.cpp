#include "ops/image.h"

#include <cmath>

#include "support/op_test.h"

namespace chipmunk::test {
namespace {

struct ConvCase : NamedCase {
  int64_t batch, height, width, in_channels, out_channels, kernel_height, kernel_width;
  int64_t stride = 1, pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  bool bias = false, residual = false;
};

class ConvTest : public OpCaseTest<ConvCase> {};

TEST_P(ConvTest, MatchesReferenceTwice) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const ConvCase& c = test_case();
  const Tensor x = random({c.batch, c.height, c.width, c.in_channels});
  // As files store them.
  const Tensor weight = random({c.out_channels, c.in_channels, c.kernel_height, c.kernel_width}, DType::kBF16, 0.3f);
  const Conv2d layer = ops::make_conv2d(context(), weight, c.bias ? random({c.out_channels}, DType::kBF16) : Tensor());
  ops::Conv2dOptions options{c.stride, c.pad_top, c.pad_left, c.pad_bottom, c.pad_right, {}};
  const auto out_size = [&](int64_t size, int64_t pad, int64_t kernel) { return (size + pad - kernel) / c.stride + 1; };
  if (c.residual) {
    options.residual = random({c.batch, out_size(c.height, c.pad_top + c.pad_bottom, c.kernel_height),
                               out_size(c.width, c.pad_left + c.pad_right, c.kernel_width), c.out_channels});
  }
  const Reference expected =
      reference_conv2d({read(x), read(weight.permute({0, 2, 3, 1})), read(layer.bias), read(options.residual), c.stride,
                        c.pad_top, c.pad_left, c.pad_bottom, c.pad_right});
  const Array first = read(ops::conv2d(context(), x, layer, options));
  const auto terms = static_cast<double>(c.in_channels * c.kernel_height * c.kernel_width);
  expect_close(first, expected, 4.0 + std::sqrt(terms));
  expect_equal(read(ops::conv2d(context(), x, layer, options)), first);
}

CHIPMUNK_INSTANTIATE(ConvTest,
                     ::testing::Values(ConvCase{"k3", 1, 12, 12, 16, 32, 3, 3, 1, 1, 1, 1, 1, true},
                                       ConvCase{"k3_residual", 2, 9, 11, 16, 16, 3, 3, 1, 1, 1, 1, 1, true, true},
                                       ConvCase{"k1", 1, 7, 5, 32, 24, 1, 1, 1, 0, 0, 0, 0, true},
                                       ConvCase{"no_bias_residual", 1, 7, 5, 8, 8, 3, 3, 1, 1, 1, 1, 1, false, true},
                                       ConvCase{"down", 1, 12, 10, 16, 16, 3, 3, 2, 0, 0, 1, 1, true},
                                       ConvCase{"odd_channels", 1, 6, 7, 3, 5, 3, 3, 1, 1, 1, 1, 1, true},
                                       ConvCase{"one_pixel", 1, 1, 1, 7, 3, 1, 1},
                                       ConvCase{"rectangular_kernel", 2, 9, 8, 4, 6, 5, 2, 1, 2, 0, 1, 1, true, true},
                                       ConvCase{"stride3", 1, 17, 13, 5, 4, 3, 3, 3, 2, 0, 1, 2, true}));

class ImageTest : public OpCaseTest<OnlyCase> {};

TEST_P(ImageTest, UpsampleNearest) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  for (const int64_t factor : {int64_t{1}, int64_t{2}, int64_t{3}}) {
    const int64_t height = 5, width = 7, channels = 3;
    const Tensor x = random({2, height, width, channels});
    const Array values = read(x);
    Array expected(Dims{2, height * factor, width * factor, channels});
    for (int64_t i = 0; i < 2 * height * width * factor * factor * channels; ++i) {
      const int64_t c = i % channels, column = i / channels % (width * factor);
      const int64_t row = i / channels / (width * factor) % (height * factor);
      const int64_t b = i / channels / (width * factor) / (height * factor);
      expected[i] = values[((b * height + row / factor) * width + column / factor) * channels + c];
    }
    expect_equal(read(ops::upsample_nearest(context(), x, factor)), expected);
  }
}

TEST_P(ImageTest, BlendFadesFromThePreviousTile) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  for (const int dimension : {1, 2}) {
    for (const int64_t asked : {int64_t{0}, int64_t{1}, int64_t{4}, int64_t{100}}) {
      const Tensor previous = dimension == 1 ? random({2, 5, 9, 3}) : random({2, 9, 5, 3});
      const Tensor tile = dimension == 1 ? random({2, 7, 9, 3}) : random({2, 9, 7, 3});
      const Array before = read(previous);
      Reference expected{read(tile), read(tile)};
      const int64_t extent = std::min<int64_t>(asked, 5), height = tile.dim(1), width = tile.dim(2);
      for (int64_t i = 0; i < tile.numel(); ++i) {
        const int64_t c = i % 3, column = i / 3 % width, row = i / 3 / width % height, b = i / 3 / width / height;
        const int64_t along = dimension == 1 ? row : column;
        if (along >= extent) continue;
        const int64_t from = dimension == 1 ? ((b * 5 + 5 - extent + row) * width + column) * 3 + c
                                            : ((b * height + row) * 5 + 5 - extent + column) * 3 + c;
        const double weight = static_cast<double>(along) / static_cast<double>(extent);
        expected.magnitude[i] = std::abs(before[from]) + std::abs(expected.value[i]);
        expected.value[i] = before[from] * (1.0 - weight) + expected.value[i] * weight;
      }
      for (double& magnitude : expected.magnitude.values) magnitude = std::abs(magnitude);
      ops::blend_into(context(), previous, tile, dimension, asked);
      expect_close(read(tile), expected, 4.0);
    }
  }
}

TEST_P(ImageTest, QuantizeRoundsAndClamps) {
  CHIPMUNK_OPEN_OR_SKIP(device_name());
  const Tensor x = from_floats({8}, {-1.0f, 1.0f, 0.0f, -7.0f, INFINITY, -INFINITY, std::nanf(""), 0.25f});
  const Array got = read(ops::quantize_image(context(), x));
  // 0.5 * 255 = 127.5 lies between two bytes; half to even is 128. 0.625 * 255 = 159.375.
  const double expected[] = {0, 255, 128, 0, 255, 0, 0, 159};
  for (int64_t i = 0; i < 8; ++i) EXPECT_EQ(got[i], expected[i]) << i;

  const Tensor values = random({3, 41, 5});
  const Array input = read(values), bytes = read(ops::quantize_image(context(), values));
  for (int64_t i = 0; i < values.numel(); ++i) {
    const double exact = std::min(std::max(input[i] / 2 + 0.5, 0.0), 1.0) * 255.0;
    EXPECT_LE(std::abs(bytes[i] - exact), 0.5 + 255.0 * 4 * 0x1p-24) << i;
  }
}

CHIPMUNK_INSTANTIATE(ImageTest, ::testing::Values(OnlyCase{}));

}  // namespace
}  // namespace chipmunk::test
