#pragma once

#include <algorithm>
#include <chrono>
#include <dnnl.hpp>
#include <vector>

namespace bench {

/// The rate in FLOP/s of oneDNN's own f32 matmul [m, k] x [k, n] with weights in the layout it prefers: the median of
/// five runs, with all OpenMP threads.
inline double onednn_f32_flops(int m, int n, int k) {
  using dnnl::memory;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const auto describe = [](int rows, int columns, memory::format_tag tag) {
    return memory::desc({rows, columns}, memory::data_type::f32, tag);
  };
  const dnnl::matmul::primitive_desc matmul(
      dnnl::matmul::desc(describe(m, k, memory::format_tag::ab), describe(k, n, memory::format_tag::any),
                         describe(m, n, memory::format_tag::ab)),
      engine);
  memory x(matmul.src_desc(), engine), weight(matmul.weights_desc(), engine), out(matmul.dst_desc(), engine);
  for (memory* operand : {&x, &weight}) {
    float* data = static_cast<float*>(operand->get_data_handle());
    for (size_t i = 0; i < operand->get_desc().get_size() / sizeof(float); ++i) {
      data[i] = 0.25f + static_cast<float>(i % 13) * 0.01f;
    }
  }
  const dnnl::matmul primitive(matmul);
  std::vector<double> seconds;
  for (int i = 0; i < 6; ++i) {
    const auto start = std::chrono::steady_clock::now();
    primitive.execute(stream, {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, weight}, {DNNL_ARG_DST, out}});
    stream.wait();
    const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (i > 0) seconds.push_back(elapsed);  // the first run compiles and faults pages in
  }
  std::sort(seconds.begin(), seconds.end());
  return 2.0 * m * n * k / seconds[seconds.size() / 2];
}

}  // namespace bench
