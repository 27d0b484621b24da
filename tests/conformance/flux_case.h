#pragma once

#include <map>
#include <string>

#include "conformance/case_folder.h"
#include "core/context.h"

namespace chipmunk::conformance {

/// Computed tensors by name: dense host tensors, f32 or i32.
using Results = std::map<std::string, Tensor>;

/// Everything that a FLUX case describes and this engine can compute. A group of tensors whose computation fails is
/// left out, with the reason in `failures` under the group's name.
Results compute_flux_case(const Context& context, const CaseFolder& folder,
                          std::map<std::string, std::string>& failures);

}  // namespace chipmunk::conformance
