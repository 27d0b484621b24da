#include "pipeline/latents.h"

#include <span>

#include "core/philox.h"
#include "ops/elementwise.h"

namespace chipmunk {
namespace {

/// Packed latents as [B, grid row, grid column, channel, dy, dx]: a token holds a patch channel by channel.
Tensor as_patches(const Tensor& packed, const LatentGeometry& geometry) {
  return packed.reshape({packed.dim(0), geometry.grid_height(), geometry.grid_width(), geometry.channels, 2, 2});
}

}  // namespace

Tensor packed_noise(const Context& context, const LatentGeometry& geometry, int64_t batch, uint64_t seed) {
  const Tensor planes = make_host_tensor({batch, geometry.channels, geometry.height, geometry.width}, DType::kF32);
  const size_t per_sample = static_cast<size_t>(geometry.channels * geometry.height * geometry.width);
  for (int64_t i = 0; i < batch; ++i) {
    float* sample = planes.data_as<float>() + static_cast<size_t>(i) * per_sample;
    philox_normals(seed + static_cast<uint64_t>(i), std::span<float>(sample, per_sample));
  }
  const Tensor split = context.to_device(planes).reshape(
      {batch, geometry.channels, geometry.grid_height(), 2, geometry.grid_width(), 2});
  Tensor packed = context.empty({batch, geometry.tokens(), 4 * geometry.channels}, DType::kF32);
  ops::copy_into(context, split.permute({0, 2, 4, 1, 3, 5}), as_patches(packed, geometry));
  return packed;
}

Tensor unpack_latents(const Context& context, const Tensor& packed, const LatentGeometry& geometry,
                      const AutoencoderConfig& config) {
  const int64_t batch = packed.dim(0);
  const Tensor latents = context.empty({batch, geometry.height, geometry.width, geometry.channels}, DType::kF32);
  const Tensor split = latents.reshape({batch, geometry.grid_height(), 2, geometry.grid_width(), 2, geometry.channels});
  ops::copy_into(context, as_patches(packed, geometry).permute({0, 1, 4, 2, 5, 3}), split);

  const Tensor shift = make_host_tensor({1, 1, 1, 1}, DType::kF32);
  *shift.data_as<float>() = static_cast<float>(config.shift_factor);
  Tensor shifts = context.to_device(shift);
  for (int i = 0; i < 4; ++i) shifts = shifts.expand(i, latents.dim(i));
  ops::axpby_into(context, static_cast<float>(1.0 / config.scaling_factor), latents, 1.0f, shifts, latents);
  return ops::to_dense(context, latents, context.activation_dtype());
}

}  // namespace chipmunk
