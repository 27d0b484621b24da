#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pipeline/flux_pipeline.h"
#include "support/simulated_device.h"

namespace chipmunk::test {

/// The small random model, where the tests were built or, elsewhere, below the working folder.
std::filesystem::path tiny_flux();

/// Collects what loading and generations tell.
class EngineRecorder : public ProgressSink {
 public:
  std::vector<std::vector<float>> latents;  // a step each
  std::vector<LoadReport> loading;

  bool wants_latents() const override { return true; }
  void on_latents(int, const float* values, size_t count) override { latents.emplace_back(values, values + count); }
  void on_loading(const LoadReport& report) override { loading.push_back(report); }
};

struct Outcome {
  std::vector<std::vector<float>> latents;
  std::vector<uint8_t> pixels;  ///< of the last picture
  size_t peak_bytes = 0;

  bool same_values(const Outcome& other) const { return latents == other.latents && pixels == other.pixels; }
};

/// tiny_flux() on a device: "cpu", "cuda" or "simulated" (see SimulatedDevice), whose rules must be kept to the end.
struct Engine {
  explicit Engine(const std::string& device, Offload offload = Offload::kNone, size_t limit_bytes = 0)
      : Engine(device, WeightOptions{offload, false}, limit_bytes) {}
  Engine(const std::string& device, const WeightOptions& weights, size_t limit_bytes = 0);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  Outcome generate(const GenerateRequest& request) const;
  /// Bytes that the device's allocator has handed out.
  size_t in_use() const { return context.runtime().memory().current_bytes; }

  std::optional<SimulatedDevice> simulated;
  Context context;
  EngineRecorder loading;
  std::unique_ptr<FluxPipeline> pipeline;
};

}  // namespace chipmunk::test
