#pragma once

#include <vector>

#include "core/context.h"
#include "models/autoencoder_kl.h"
#include "models/clip_text.h"
#include "models/flux_transformer.h"
#include "models/t5_encoder.h"
#include "models/weight_group.h"

/// Models bind their weights as views of mapped files. The CPU computes from those; a GPU needs them in its own memory.
namespace chipmunk {

/// What becomes of the weights of a transformer's blocks.
enum class BlockLinears {
  kStored,  ///< they stay as they are
  /// Those of q, k, v, attention's output and the MLPs become f8_e4m3 with a scale a row; modulations stay.
  kFp8,
};

/// Every weight of a model once, block by block in the order of its forward.
std::vector<WeightGroup> weight_groups(FluxTransformer& model, BlockLinears linears = BlockLinears::kStored);
std::vector<WeightGroup> weight_groups(ClipTextModel& model);
std::vector<WeightGroup> weight_groups(T5Encoder& model);
/// Without its convolutions, which take_conv2d has brought to the device.
std::vector<WeightGroup> weight_groups(AutoencoderKl& model);

/// A transformer's weights without its blocks', and one group a block in the order in which they run.
WeightGroup weight_group_around_blocks(FluxTransformer& model);
std::vector<WeightGroup> weight_groups_of_blocks(FluxTransformer& model, BlockLinears linears = BlockLinears::kStored);

/// Makes the blocks' linears f8_e4m3 with scales in memory of their own, block by block: for the CPU, whose weights
/// nothing else moves.
void quantize_on_host(const Context& context, FluxTransformer& model);

/// Replaces the host tensors of the groups by copies on the context's device, a group in one allocation; in the order
/// of the compute stream, so that the model can be used at once. Does nothing on the CPU. Throws kOutOfMemory; then all
/// of them are on the host still.
void upload_weights(const Context& context, const std::vector<WeightGroup>& groups, const UploadProgress& progress);

}  // namespace chipmunk
