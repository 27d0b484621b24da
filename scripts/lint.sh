#!/usr/bin/env bash
# clang-tidy on changed C++ files of the engine and its tools, the most recently changed first, for at most five minutes; needs the release build's
# compile commands.
#   scripts/lint.sh [BASE]   files changed since BASE; default: in the commits of the last day before HEAD
set -euo pipefail
cd "$(dirname "$0")/.."
readonly limit_s=300

if [ $# -gt 0 ]; then
  changed=$(git diff --name-only --diff-filter=d "$1" -- 'src/*.cpp' 'tools/*.cpp')
else
  day_before=$(($(git log -1 --format=%ct) - 86400))
  changed=$(git log --since="@$day_before" --name-only --format= -- \
    'src/*.cpp' 'tools/*.cpp' | awk '!seen[$0]++')
fi
files=()
while read -r file; do
  [ -n "$file" ] && [ -f "$file" ] && files+=("$file")
done <<<"$changed"
if [ ${#files[@]} -eq 0 ]; then
  echo "lint: no changed C++ files"
  exit 0
fi

done_list=$(mktemp)
findings=$(mktemp)
trap 'rm -f "$done_list" "$findings"' EXIT
check_one() {
  # GCC's warning flags in the compile commands mean nothing to clang.
  if ! clang-tidy-19 -p build-release --quiet --extra-arg=-Wno-unknown-warning-option "$1" 2>/dev/null >>"$findings"; then
    echo "lint: findings in $1" >>"$findings"
  fi
  echo "$1" >>"$done_list"
}
export -f check_one
export done_list findings
status=0
printf '%s\0' "${files[@]}" | timeout "$limit_s" xargs -0 -P 2 -I{} bash -c 'check_one {}' || status=$?
echo "lint: checked $(wc -l <"$done_list") of ${#files[@]} changed files"
if grep -q '^lint: findings in' "$findings"; then
  cat "$findings"
  exit 1
fi
# 124: time ran out, which is no finding.
[ "$status" -eq 0 ] || [ "$status" -eq 124 ]
