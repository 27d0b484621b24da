// chipmunk_conformance [--device DEVICE] DIR...: computes what case folders describe and compares it with the values of
// the reference implementations. Prints a line a tensor (name, worst error over allowed) and last "N passed, N failed".
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "backend.h"
#include "chipmunk/error.h"
#include "conformance/comparison.h"
#include "conformance/flux_case.h"
#include "conformance/method_case.h"
#include "conformance/method_host_case.h"

namespace {

using namespace chipmunk;
using namespace chipmunk::conformance;

// Bounds on the relative error norm in bf16 (docs/architecture.md, "Tests").
constexpr double kBf16Bound = 0.02, kBf16LatentBound = 0.05;

struct Totals {
  int passed = 0, failed = 0;
};

double relative_bound(const std::string& name) { return name.starts_with("pipeline.") ? kBf16LatentBound : kBf16Bound; }

void run_case(const Context& context, const std::string& path, Totals& totals) {
  const CaseFolder folder = CaseFolder::open(path);
  std::map<std::string, std::string> failures;
  Results results = compute_flux_case(context, folder, failures);
  results.merge(compute_method_case(context, folder, failures));
  // What a device computed stands; the host's selection fills in what it does not show, such as masks.
  results.merge(compute_method_host_case(folder, failures));
  for (const auto& [group, reason] : failures) {
    std::printf("%s: %s* could not be computed: %s\n", folder.name().c_str(), group.c_str(), reason.c_str());
  }
  const Rule rule = context.activation_dtype() == DType::kF32 ? Rule::kElementwise : Rule::kRelativeNorm;
  for (const auto& [name, expectation] : folder.expected()) {
    // What other implementations do, for people to read.
    if (name.starts_with("info.")) {
      std::printf("info   %s %s not compared\n", folder.name().c_str(), name.c_str());
      continue;
    }
    const auto found = results.find(name);
    Comparison comparison;
    if (found == results.end()) {
      comparison.detail = "not computed";
    } else {
      comparison = compare(found->second, expectation, rule, relative_bound(name));
    }
    ++(comparison.passed ? totals.passed : totals.failed);
    std::printf("%s %s %s %.3g%s%s\n", comparison.passed ? "ok    " : "FAILED", folder.name().c_str(), name.c_str(),
                comparison.worst, comparison.detail.empty() ? "" : " ", comparison.detail.c_str());
  }
}

}  // namespace

int main(int argc, char** argv) {
  Device device;
  std::vector<std::string> folders;
  try {
    for (int i = 1; i < argc; ++i) {
      if (std::strcmp(argv[i], "--device") == 0 && i + 1 < argc) {
        device = parse_device(argv[++i]);
      } else {
        folders.emplace_back(argv[i]);
      }
    }
    if (folders.empty()) {
      std::fprintf(stderr, "usage: chipmunk_conformance [--device cpu|cuda[:i]] DIR...\n");
      return 2;
    }
    const Context context =
        device.kind == DeviceKind::kCuda ? make_cuda_context({device.index, 0}) : make_cpu_context({0, 0});
    Totals totals;
    for (const std::string& folder : folders) {
      try {
        run_case(context, folder, totals);
      } catch (const std::exception& error) {
        std::printf("FAILED %s: %s\n", folder.c_str(), error.what());
        ++totals.failed;
      }
    }
    std::printf("%d passed, %d failed\n", totals.passed, totals.failed);
    return totals.failed == 0 ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "chipmunk_conformance: error: %s\n", error.what());
    return 1;
  }
}
