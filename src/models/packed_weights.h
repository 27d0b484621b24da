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
  /// Tensors of the group that are on a device already are left out.
  PackedWeights(const Context& context, const WeightGroup& group);

  /// Size of the block.
  size_t bytes() const { return bytes_; }
  /// Copies what the bytes [begin, end) of the block are to be. Those between weights stay as they are.
  void copy(size_t begin, size_t end, void* destination) const;

  /// Makes the model's tensors views of a block that holds their values.
  void bind(const std::shared_ptr<Storage>& block) const;
  /// Makes them what they were.
  void bind_host() const;
  /// Makes them, from then on, views of a block of host memory that holds their values.
  void move_host(const std::shared_ptr<Storage>& block);

 private:
  struct Weight {
    Tensor* bound;  // of the model
    Tensor host;    // as the model had it, dense
    size_t offset;  // bytes from the start of the block, a multiple of 256
  };

  std::vector<Weight> weights_;
  size_t bytes_ = 0;
};

/// Bytes of the groups' host tensors, packed.
size_t packed_bytes(const std::vector<WeightGroup>& groups);

/// A stretch of a block that is copied at once.
struct BlockPiece {
  size_t block;
  size_t begin, end;  ///< bytes of the block

  size_t bytes() const { return end - begin; }
};

/// All bytes of all blocks, in order.
std::vector<BlockPiece> cut_into_pieces(const std::vector<PackedWeights>& blocks);

}  // namespace chipmunk
