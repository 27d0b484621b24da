#include "chipmunk/pipeline.h"

#include "backend.h"
#include "pipeline/flux_pipeline.h"

namespace chipmunk {

std::unique_ptr<Pipeline> Pipeline::load(const LoadOptions& options, ProgressSink& progress) {
  const Context context = options.device.kind == DeviceKind::kCuda
                              ? make_cuda_context({options.device.index, options.memory_limit})
                              : make_cpu_context({options.threads, options.memory_limit});
  if (options.fp8) context.backend().require_fp8_linears();
  return std::make_unique<FluxPipeline>(context, FluxComponents::load(context, options.files),
                                        WeightOptions{options.offload, options.fp8}, progress);
}

std::unique_ptr<Pipeline> Pipeline::load(const LoadOptions& options) {
  ProgressSink silent;
  return load(options, silent);
}

}  // namespace chipmunk
