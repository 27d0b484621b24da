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

ops::LayerNormCall HiddenStates::take_call(const Norm& norm) {
  const TokenRange tokens = tokens_of(norm.rows);
  ops::GatedUpdate update;
  const auto same =
      std::find_if(pending_.begin(), pending_.end(), [&](const Pending& p) { return p.tokens == tokens; });
  if (same != pending_.end()) {
    update = same->update;
    pending_.erase(same);
  }
  settle_overlapping(tokens);
  return {norm.rows, norm.out, epsilon_, {}, norm.modulation, update};
}

void HiddenStates::norm_into(const Norm& norm) {
  const auto [x, out, epsilon, affine, modulation, update] = take_call(norm);
  ops::layer_norm_into(context_, x, out, epsilon, affine, modulation, update);
}

void HiddenStates::norm_into(const Norm& first, const Norm& second) {
  const ops::LayerNormCall call = take_call(first);
  ops::layer_norm_pair_into(context_, call, take_call(second));
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
