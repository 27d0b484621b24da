#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/context.h"
#include "models/autoencoder_kl.h"
#include "models/clip_text.h"
#include "models/flux_transformer.h"
#include "models/t5_encoder.h"

/// Models bind their weights as views of mapped files. The CPU computes from those; a GPU needs them in its own memory.
namespace chipmunk {

/// The weights that one part of a model, such as a transformer block, uses together.
struct WeightGroup {
  std::string name;
  std::vector<Tensor*> tensors;  ///< of the model; empty ones are left out
};

/// Every weight of a model once, block by block in the order of its forward.
std::vector<WeightGroup> weight_groups(FluxTransformer& model);
std::vector<WeightGroup> weight_groups(ClipTextModel& model);
std::vector<WeightGroup> weight_groups(T5Encoder& model);
/// Without its convolutions, which take_conv2d has brought to the device.
std::vector<WeightGroup> weight_groups(AutoencoderKl& model);

/// Hears how much of the weights has been sent: bytes done, bytes in all.
using UploadProgress = std::function<void(size_t done, size_t total)>;

/// Replaces the host tensors of the groups by copies on the context's device, a group in one allocation; in the order
/// of the compute stream, so that the model can be used at once. Does nothing on the CPU. Throws kOutOfMemory; the
/// groups before the one that did not fit are then on the device.
void upload_weights(const Context& context, const std::vector<WeightGroup>& groups, const UploadProgress& progress);

}  // namespace chipmunk
