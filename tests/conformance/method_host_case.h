#pragma once

#include <map>
#include <string>

#include "conformance/case_folder.h"
#include "conformance/results.h"

namespace chipmunk::conformance {

/// What a case of the sparse method describes and plain host code computes: token orders, bit packing, static columns,
/// and the selections that follow from the case's inputs and expected column sums or drifts. Failures as in
/// compute_flux_case.
Results compute_method_host_case(const CaseFolder& folder, std::map<std::string, std::string>& failures);

}  // namespace chipmunk::conformance
