#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/context.h"
#include "linear_shape.h"

namespace chipmunk::cli {

enum class OpKind : uint8_t {
  kLinear,
  kAttention,
  kConvolution,
  kMemory,  ///< elementwise ops, norms, copies: bound by memory, counted in bytes
  kColumnAttention,
  kColumnMlp,
  kSelection,  ///< of columns or features
};

/// Work that depends on numbers on the device.
struct KeptCounts {
  const int32_t* counts = nullptr;  ///< one a group of rows: what it keeps; must live until the op is taken
  int64_t groups = 0;
  double flops_each = 0.0;  ///< of one that is kept
};

/// What an op's arguments say of its work.
struct OpNote {
  OpKind kind = OpKind::kMemory;
  double flops = 0.0;  ///< multiply-adds times two; 0 for kMemory, kSelection
  double bytes = 0.0;  ///< inputs and outputs, each once; 0 for kColumnAttention, kColumnMlp
  LinearShape linear;  ///< of kLinear
  KeptCounts kept;     ///< of kColumnAttention, kColumnMlp, whose flops are counted when the op is taken
};

struct TimedOp {
  OpNote note;
  double ms = 0.0;  ///< between an event before the op and one behind it
};

/// A context that does what another does and notes how long each op takes. The events cost a few microseconds an op,
/// outside of what they measure; nothing waits before take().
class TimedContext {
 public:
  explicit TimedContext(const Context& inner);

  const Context& context() const { return context_; }
  /// The ops since the last call, in their order. Blocks until they are done.
  std::vector<TimedOp> take();

 private:
  class TimingBackend;

  std::shared_ptr<Context> owner_;
  std::shared_ptr<TimingBackend> backend_;
  Context context_;
};

}  // namespace chipmunk::cli
