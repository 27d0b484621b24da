#include "support/flux_engine.h"

#include <gtest/gtest.h>

#include "backend.h"

namespace chipmunk::test {
namespace {

Context make_context(const std::string& device, const std::optional<SimulatedDevice>& simulated, size_t limit_bytes) {
  if (simulated) return simulated->context();
  return device == "cuda" ? make_cuda_context({0, limit_bytes}) : make_cpu_context({2, limit_bytes});
}

}  // namespace

std::filesystem::path tiny_flux() {
  const std::filesystem::path built = CHIPMUNK_TEST_DATA "/golden/flux-tiny/model";
  return std::filesystem::exists(built) ? built : std::filesystem::path("tests/data/golden/flux-tiny/model");
}

Engine::Engine(const std::string& device, const WeightOptions& weights, size_t limit_bytes)
    : simulated(device == "simulated" ? std::optional<SimulatedDevice>(std::in_place, limit_bytes) : std::nullopt),
      context(make_context(device, simulated, limit_bytes)) {
  ModelFiles files;
  files.model = tiny_flux();
  pipeline = std::make_unique<FluxPipeline>(context, FluxComponents::load(context, files), weights, loading);
}

Engine::~Engine() {
  pipeline.reset();
  if (simulated) {
    EXPECT_EQ(simulated->violations(), std::vector<std::string>());
  }
}

Outcome Engine::generate(const GenerateRequest& request) const {
  EngineRecorder recorder;
  const GenerateResult result = pipeline->generate(request, recorder);
  return {std::move(recorder.latents), result.samples.back().rgb, result.peak_memory_bytes};
}

}  // namespace chipmunk::test
