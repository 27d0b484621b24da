#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "core/context.h"
#include "models/weight_group.h"

namespace chipmunk {

/// The host tensors of a group, and where each lies in one block of memory that holds them all.
class PackedWeights {
 public:
  struct Weight {
    Tensor* bound;  ///< of the model
    Tensor host;    ///< as the model had it, dense
    size_t offset;  ///< bytes from the start of the block, a multiple of 256
  };

  /// Tensors of the group that are on a device already are left out.
  PackedWeights(const Context& context, const WeightGroup& group);

  const std::vector<Weight>& weights() const { return weights_; }
  /// Size of the block.
  size_t block_bytes() const { return block_bytes_; }
  /// Bytes of the values alone.
  size_t bytes() const { return bytes_; }

  /// Makes the model's tensors views of a block that holds their values.
  void bind(const std::shared_ptr<Storage>& block) const;
  /// Makes them what they were.
  void bind_host() const;
  /// Copies all values into a block of host memory, to which the model is bound from then on.
  void move_host(const std::shared_ptr<Storage>& block, const UploadProgress& progress);

 private:
  std::vector<Weight> weights_;
  size_t block_bytes_ = 0, bytes_ = 0;
};

/// Bytes of the groups' host tensors.
size_t host_bytes(const std::vector<WeightGroup>& groups);

/// Copies host memory with several threads: a mapped file that is not in memory yet is read faster by several threads'
/// page faults.
void copy_in_parallel(void* destination, const void* source, size_t bytes);

}  // namespace chipmunk
