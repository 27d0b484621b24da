#!/usr/bin/env bash
# Runs everything that a GPU is needed for; a test that finds none fails. The last line is "N passed, N failed".
#   scripts/gpu_tests.sh                 builds here and tests the GPU of this machine
#   scripts/gpu_tests.sh --pack DIR      builds here and collects programs and libraries in DIR, for a machine with a GPU
#   scripts/gpu_tests.sh --packed DIR    tests with what --pack collected; nothing is built or installed
#   --sanitizer TOOL                     under compute-sanitizer: memcheck, racecheck, initcheck or synccheck; fewer tests
#   --build DIR                          the build folder; default build-release
set -euo pipefail
cd "$(dirname "$0")/.."

build=build-release
pack=
packed=
sanitizer=
while [ $# -gt 0 ]; do
  case "$1" in
    --build) build=${2:?"--build needs a folder"}; shift 2 ;;
    --pack) pack=${2:?"--pack needs a folder"}; shift 2 ;;
    --packed) packed=${2:?"--packed needs a folder"}; shift 2 ;;
    --sanitizer) sanitizer=${2:?"--sanitizer needs a tool"}; shift 2 ;;
    *) sed -n 2,7p "$0" >&2; exit 2 ;;
  esac
done
readonly programs=(chipmunk chipmunk_conformance chipmunk_test_ops chipmunk_test_kernels chipmunk_test_sparse
  chipmunk_test_pipeline)
readonly archive=gpu_tests.tar.xz

if [ -z "$packed" ]; then
  cmake -S . -B "$build" -G Ninja -DCHIPMUNK_CUDA=ON
  cmake --build "$build" --target chipmunk_cli "${programs[@]:1}"
fi
if [ -n "$pack" ]; then
  mkdir -p "$pack"
  rm -rf "${pack:?}/$archive" "${pack:?}/files"
  mkdir "$pack/files"
  for program in "${programs[@]}"; do
    strip -o "$pack/files/$program" "$build/bin/$program"
    # What every Linux has, and the toolkit's own libraries, stay behind.
    ldd "$build/bin/$program" | awk '$3 ~ /^\// {print $3}' |
      grep -vE '/(ld-linux|libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+|libcublas|libcublasLt)[-.0-9a-z]*\.so' |
      xargs -I{} cp -Ln {} "$pack/files/"
  done
  # The programs have most of their code in common: a dictionary that holds more than one of them finds it.
  XZ_OPT='--lzma2=preset=3,dict=192MiB' tar -cJf "$pack/$archive" -C "$pack/files" .
  rm -rf "$pack/files"
  du -h "$pack/$archive"
  exit 0
fi

bin=$build/bin
if [ -n "$packed" ]; then
  bin=$packed/files
  rm -rf "$bin"
  mkdir -p "$bin"
  tar -xJf "$packed/$archive" -C "$bin"
  export LD_LIBRARY_PATH="$bin${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
export CHIPMUNK_REQUIRE_CUDA=1 OMP_WAIT_POLICY=passive

passed=0
failed=0
# count SUMMARY: adds the numbers of a program's last line.
count() {
  passed=$((passed + $1))
  failed=$((failed + $2))
}
under=()
filter='*/cuda_*'
kernel_filter='Gpu/*:*/cuda_*'
pipeline_filter='*/cuda_*'
# Without the sequences that choose anew at every full step: bf16 does not resolve which columns or features come last.
cases=(flux-tiny flux-schnell-tiny flux-hd128 flux-original method/attention method/attention-hd128
  method/delta-attention-fixed-mask method/delta-attention-hd128)
if [ -n "$sanitizer" ]; then
  under=(compute-sanitizer --tool "$sanitizer" --error-exitcode 3)
  [ "$sanitizer" != memcheck ] || under+=(--leak-check full)
  cases=(flux-tiny method/delta-attention-hd128)
  pipeline_filter='*.GivesTheSameBitsSlow/cuda_*'
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
# run_suite PROGRAM FILTER: a GoogleTest program; one that crashes or has no test counts as a failed test.
run_suite() {
  local status=0 suite_passed suite_failed
  "${under[@]}" "$bin/$1" --gtest_brief=1 --gtest_filter="$2" 2>&1 | tee "$log" || status=$?
  suite_passed=$(sed -nE 's/^\[  PASSED  \] ([0-9]+) tests?.*/\1/p' "$log" | tail -n 1)
  suite_failed=$(sed -nE 's/^ *([0-9]+) FAILED TESTS?$/\1/p' "$log" | tail -n 1)
  count "${suite_passed:-0}" "${suite_failed:-0}"
  [ "$status" -eq 0 ] || [ "${suite_failed:-0}" -gt 0 ] || count 0 1
  [ "${suite_passed:-0}" -gt 0 ] || count 0 1
}
run_suite chipmunk_test_ops "$filter"
run_suite chipmunk_test_kernels "$kernel_filter"
run_suite chipmunk_test_sparse "$filter"
run_suite chipmunk_test_pipeline "$pipeline_filter"

folders=()
for case in "${cases[@]}"; do folders+=("tests/data/golden/$case"); done
folders+=(tests/data/scenes)
status=0
"${under[@]}" "$bin/chipmunk_conformance" --device cuda "${folders[@]}" >"$log" 2>&1 || status=$?
grep -v '^ok\|^info' "$log" || true
summary=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$log" | tail -n 1)
if [ -n "$summary" ]; then
  count "$(sed -E 's/ passed.*//' <<<"$summary")" "$(sed -E 's/.*, ([0-9]+) failed/\1/' <<<"$summary")"
  [ "$status" -ne 3 ] || count 0 1
else
  count 0 1
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
