#pragma once

#include <map>
#include <string>

#include "conformance/case_folder.h"
#include "conformance/results.h"
#include "core/context.h"

namespace chipmunk::conformance {

/// Everything that a FLUX case describes and this engine can compute. A group of tensors whose computation fails is
/// left out, with the reason in `failures` under the group's name.
Results compute_flux_case(const Context& context, const CaseFolder& folder,
                          std::map<std::string, std::string>& failures);

}  // namespace chipmunk::conformance
