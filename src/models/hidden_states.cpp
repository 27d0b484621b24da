#include "models/hidden_states.h"

#include <utility>

#include "ops/elementwise.h"

namespace chipmunk {

HiddenStates::HiddenStates(const Context& context, Tensor joint, float epsilon)
    : context_(context), joint_(std::move(joint)), epsilon_(epsilon) {}

void HiddenStates::add(const Tensor& rows, const Tensor& value, const Tensor& gate) {
  settle();
  pending_rows_ = rows;
  pending_ = {value, gate};
}

void HiddenStates::norm_into(const Tensor& rows, const ops::Modulation& modulation, const Tensor& out) {
  ops::GatedUpdate update;
  if (pending_.value && rows.data() == pending_rows_.data() && rows.shape() == pending_rows_.shape()) {
    update = std::exchange(pending_, {});
  }
  settle();
  ops::layer_norm_into(context_, rows, out, epsilon_, {}, modulation, update);
}

void HiddenStates::settle() {
  if (!pending_.value) return;
  ops::gated_add_into(context_, pending_.value, pending_.gate, pending_rows_, pending_rows_);
  pending_ = {};
}

}  // namespace chipmunk
