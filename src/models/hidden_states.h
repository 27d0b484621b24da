#pragma once

#include <cstdint>
#include <vector>

#include "ops/norm.h"

namespace chipmunk {

/// A transformer's hidden states, the rows of all streams in one buffer. What an MLP gave is added to them by the norm
/// that comes next, which goes through the same memory.
class HiddenStates {
 public:
  /// epsilon: of the norms. The context must outlive this.
  HiddenStates(const Context& context, Tensor joint, float epsilon);

  /// The buffer; what is pending is not in it.
  const Tensor& joint() const { return joint_; }

  /// rows += gate * value, by the next norm_into() of the same rows, before any other use of some of them here, or by
  /// settle(). rows: consecutive tokens of joint().
  void add(const Tensor& rows, const Tensor& value, const Tensor& gate);
  struct Norm {
    Tensor rows;
    ops::Modulation modulation;
    Tensor out;
  };
  /// out = the layer norm of rows, modulated.
  void norm_into(const Norm& norm);
  /// Two norms, of rows that do not overlap.
  void norm_into(const Norm& first, const Norm& second);
  /// Adds what is pending.
  void settle();

 private:
  struct TokenRange {
    int64_t begin, end;
    bool operator==(const TokenRange&) const = default;
  };
  struct Pending {
    Tensor rows;
    TokenRange tokens;
    ops::GatedUpdate update;
  };

  TokenRange tokens_of(const Tensor& rows) const;
  /// Takes what is pending for the rows.
  ops::LayerNormCall take_call(const Norm& norm);
  void settle_overlapping(TokenRange tokens);

  const Context& context_;
  Tensor joint_;
  float epsilon_;
  std::vector<Pending> pending_;  // of tokens that do not overlap
};

}  // namespace chipmunk
