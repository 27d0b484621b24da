#include "models/hidden_states.h"

#include <algorithm>
#include <utility>

#include "ops/elementwise.h"

namespace chipmunk {

HiddenStates::HiddenStates(const Context& context, Tensor joint, float epsilon)
    : context_(context), joint_(std::move(joint)), epsilon_(epsilon) {}

HiddenStates::TokenRange HiddenStates::tokens_of(const Tensor& rows) const {
  const int64_t bytes = static_cast<const char*>(rows.data()) - static_cast<const char*>(joint_.data());
  const int64_t first = bytes / static_cast<int64_t>(size_of(joint_.dtype())) / joint_.stride(1);
  return {first, first + rows.dim(1)};
}

void HiddenStates::add(const Tensor& rows, const Tensor& value, const Tensor& gate) {
  const TokenRange tokens = tokens_of(rows);
  settle_overlapping(tokens);
  pending_.push_back({rows, tokens, {value, gate}});
}

void HiddenStates::norm_into(const Tensor& rows, const ops::Modulation& modulation, const Tensor& out) {
  const TokenRange tokens = tokens_of(rows);
  ops::GatedUpdate update;
  const auto same =
      std::find_if(pending_.begin(), pending_.end(), [&](const Pending& p) { return p.tokens == tokens; });
  if (same != pending_.end()) {
    update = same->update;
    pending_.erase(same);
  }
  settle_overlapping(tokens);
  ops::layer_norm_into(context_, rows, out, epsilon_, {}, modulation, update);
}

void HiddenStates::settle_overlapping(TokenRange tokens) {
  const auto overlaps = [&](const Pending& p) {
    if (p.tokens.end <= tokens.begin || tokens.end <= p.tokens.begin) return false;
    ops::gated_add_into(context_, p.update.value, p.update.gate, p.rows, p.rows);
    return true;
  };
  pending_.erase(std::remove_if(pending_.begin(), pending_.end(), overlaps), pending_.end());
}

void HiddenStates::settle() { settle_overlapping({0, joint_.dim(1)}); }

}  // namespace chipmunk
