#pragma once

#include <map>
#include <string>

#include "conformance/case_folder.h"
#include "conformance/results.h"
#include "core/context.h"

namespace chipmunk::conformance {

/// What a method/* folder expects of the sparse method's ops and states, computed on the context's device step by step.
/// `failures` receives, by group, why something could not be computed.
Results compute_method_case(const Context& context, const CaseFolder& folder,
                            std::map<std::string, std::string>& failures);

}  // namespace chipmunk::conformance
