#!/usr/bin/env bash
# Builds everything and runs the whole test suite; the last line is "N passed, N failed".
#   scripts/test.sh [--preset release|debug|asan] [--quick] [arguments of ctest...]
# --quick leaves out the tests labelled slow.
set -euo pipefail
cd "$(dirname "$0")/.."

preset=release
ctest_arguments=()
while [ $# -gt 0 ]; do
  case "$1" in
    --preset) preset=${2:?"--preset needs a name"}; shift 2 ;;
    --quick) ctest_arguments+=(--label-exclude slow); shift ;;
    *) ctest_arguments+=("$1"); shift ;;
  esac
done

scripts/setup.sh
cmake --preset "$preset" -DCHIPMUNK_BUILD_TESTS=ON
cmake --build --preset "$preset"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
# -j2: the numeric tests use all cores themselves.
ctest --preset "$preset" -j2 "${ctest_arguments[@]}" 2>&1 | tee "$log" || status=$?
# "98% tests passed, 2 tests failed out of 100"
summary=$(grep -E '[0-9]+ tests? failed out of [0-9]+' "$log" | tail -n 1 || true)
failed=$(sed -nE 's/.* ([0-9]+) tests? failed out of.*/\1/p' <<<"$summary")
total=$(sed -nE 's/.*out of ([0-9]+).*/\1/p' <<<"$summary")
echo "$((${total:-0} - ${failed:-0})) passed, ${failed:-0} failed"
[ "${total:-0}" -gt 0 ] || exit 1
exit "$status"
