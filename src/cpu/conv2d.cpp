#include <cstring>
#include <dnnl.hpp>

#include "chipmunk/error.h"
#include "cpu/cpu_backend.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"

namespace chipmunk {
namespace {

using namespace cpu;
using dnnl::memory;

memory wrap(const memory::desc& desc, const dnnl::engine& engine, const void* data) {
  // oneDNN takes mutable pointers for what it only reads.
  return memory(desc, engine, const_cast<void*>(data));
}

memory::desc image_desc(int64_t batch, int64_t channels, int64_t height, int64_t width) {
  return memory::desc({batch, channels, height, width}, memory::data_type::f32, memory::format_tag::nhwc);
}

dnnl::convolution_forward::primitive_desc make_convolution(const Conv2dParams& params, const dnnl::engine& engine,
                                                           const memory::desc& x, const memory::desc& out) {
  const memory::desc weight({params.out_channels, params.in_channels, params.kernel_height, params.kernel_width},
                            memory::data_type::f32, memory::format_tag::any);
  const memory::desc bias({params.out_channels}, memory::data_type::f32, memory::format_tag::a);
  const memory::dims strides = {params.stride, params.stride};
  const memory::dims before = {params.pad_top, params.pad_left}, after = {params.pad_bottom, params.pad_right};
  const auto kind = dnnl::prop_kind::forward_inference;
  const auto algorithm = dnnl::algorithm::convolution_direct;
  const auto desc = params.bias.data != nullptr
                        ? dnnl::convolution_forward::desc(kind, algorithm, x, weight, bias, out, strides, before, after)
                        : dnnl::convolution_forward::desc(kind, algorithm, x, weight, out, strides, before, after);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (params.residual.data != nullptr) {
    dnnl::post_ops operations;
    operations.append_sum();
    attributes.set_post_ops(operations);
  }
  return {desc, attributes, engine};
}

void run_convolution(const Context& context, const Conv2dParams& params, const float* bias_values) {
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const memory::desc x = image_desc(params.batch, params.in_channels, params.in_height, params.in_width);
  const memory::desc out = image_desc(params.batch, params.out_channels, params.out_height, params.out_width);
  const auto primitive_desc = make_convolution(params, engine, x, out);

  // The weights go into the blocked layout that the implementation asks for: small beside the convolution itself.
  const memory::desc given({params.out_channels, params.in_channels, params.kernel_height, params.kernel_width},
                           memory::data_type::f32, memory::format_tag::ohwi);
  memory weight = wrap(given, engine, params.weight.data);
  const auto blocked_bytes = static_cast<int64_t>(primitive_desc.weights_desc().get_size());
  const Workspace blocked(context, divide_up(blocked_bytes, sizeof(float)));
  if (primitive_desc.weights_desc() != given) {
    memory reordered = wrap(primitive_desc.weights_desc(), engine, blocked.data());
    dnnl::reorder(weight, reordered).execute(stream, weight, reordered);
    weight = reordered;
  }
  const auto scratch_bytes = static_cast<int64_t>(primitive_desc.scratchpad_desc().get_size());
  const Workspace scratch(context, divide_up(scratch_bytes, sizeof(float)));
  // The residual is what out holds when the sum post-op adds to it.
  if (params.residual.data != nullptr && params.residual.data != params.out.data) {
    std::memcpy(params.out.data, params.residual.data, out.get_size());
  }
  const dnnl::convolution_forward convolution(primitive_desc);
  convolution.execute(stream, {{DNNL_ARG_SRC, wrap(x, engine, params.x.data)},
                               {DNNL_ARG_WEIGHTS, weight},
                               {DNNL_ARG_BIAS, wrap(primitive_desc.bias_desc(), engine, bias_values)},
                               {DNNL_ARG_DST, wrap(out, engine, params.out.data)},
                               {DNNL_ARG_SCRATCHPAD, wrap(primitive_desc.scratchpad_desc(), engine, scratch.data())}});
  stream.wait();
}

}  // namespace

void CpuBackend::conv2d(const Context& context, const Conv2dParams& params) {
  require_f32(params.x.dtype, "conv2d: x");
  require_f32(params.weight.dtype, "conv2d: weight");
  require_f32(params.residual.dtype, "conv2d: residual");
  require_f32(params.out.dtype, "conv2d: out");
  if (params.batch == 0 || params.out_channels == 0) return;
  const F32Vector bias(context, params.bias, params.out_channels);
  const ThreadScope threads(threads_);
  try {
    run_convolution(context, params, bias.data());
  } catch (const dnnl::error& error) {
    throw Error(ErrorCode::kInternal, std::string("oneDNN: ") + error.what(), "conv2d");
  }
}

}  // namespace chipmunk
