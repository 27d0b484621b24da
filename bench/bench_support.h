#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "core/context.h"
#include "core/float_formats.h"

/// What the benchmarks share: inputs, a clock, medians.
namespace chipmunk::bench {

/// Deterministic values in [-0.5, 0.5) that no kernel can exploit.
class Noise {
 public:
  explicit Noise(uint64_t seed = 1) : state_(seed) {}
  float next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<float>(state_ >> 40) / static_cast<float>(1 << 24) - 0.5f;
  }

 private:
  uint64_t state_;
};

/// f32 or bf16 values in host memory; another seed, other values.
inline Tensor random_tensor(const Dims& shape, DType dtype, uint64_t seed = 1) {
  Tensor tensor = make_host_tensor(shape, dtype);
  Noise noise(seed);
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    if (dtype == DType::kF32) {
      tensor.data_as<float>()[i] = noise.next();
    } else {
      tensor.data_as<uint16_t>()[i] = float_to_bf16(noise.next());
    }
  }
  return tensor;
}

inline double seconds(const std::function<void()>& body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

[[noreturn]] inline void fail(const char* what, double got, double expected) {
  std::fprintf(stderr, "%s: wrong result: got %.9g, expected %.9g\n", what, got, expected);
  std::exit(1);
}

}  // namespace chipmunk::bench
