#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "core/context.h"
#include "models/weight_group.h"

namespace chipmunk {

/// The host tensors of a group, and where each lies in one block of memory that holds them all; those that become
/// f8_e4m3 are quantised when they are copied.
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
  /// What a tensor of the block is made of its host tensor.
  enum class Form { kCopy, kFp8Values, kFp8Scales };

  struct Weight {
    Tensor* bound;  // of the model
    Tensor before;  // as the model had it
    Tensor host;    // what it is made of, dense
    Form form;
    size_t offset;  // bytes from the start of the block, a multiple of 256

    DType dtype() const;
    Dims shape() const;
    size_t bytes() const { return static_cast<size_t>(numel(shape())) * size_of(dtype()); }
    void copy(size_t begin, size_t end, char* destination) const;
  };

  void add(Tensor* bound, const Tensor& host, Form form);

  std::vector<Weight> weights_;
  size_t bytes_ = 0;
};

/// Bytes of the groups' host tensors, packed.
size_t packed_bytes(const Context& context, const std::vector<WeightGroup>& groups);

/// A stretch of a block that is copied at once.
struct BlockPiece {
  size_t block;
  size_t begin, end;  ///< bytes of the block

  size_t bytes() const { return end - begin; }
};

/// All bytes of all blocks, in order.
std::vector<BlockPiece> cut_into_pieces(const std::vector<PackedWeights>& blocks);

}  // namespace chipmunk
