#!/usr/bin/env bash
# Measures what the sparse method costs and saves on the demo model; of docs/method.md, the part on attention. About 70
# minutes on two CPU cores; each part leaves its tables, compare.json, report.html and pictures in a folder of OUT.
#   scripts/measure_method.sh OUT [PART...]     parts: variants all long attention times; default: all of them
# The program is build-release/bin/chipmunk, or $CHIPMUNK. Many settings at once, on GPUs: measure_pareto.py.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -lt 1 ]; then
  sed -n 2,5p "$0" >&2
  exit 2
fi
out=$1
shift
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(variants all long attention times)
program=${CHIPMUNK:-build-release/bin/chipmunk}
mkdir -p "$out/settings"

# settings NAME COMBINE ATTENTION MLP [STEP_CACHING]: the preset demo with parts switched off or added.
settings() {
  cat >"$out/settings/$1.yml" <<YAML
patchify: {is_enabled: true}
attn: {is_enabled: $3, should_compress_indices: false, random_keys: 0.0, top_keys: 0.05, recompute_mask: true,
       full_step_schedule: [0, 1, 2, 3, 4, 5, 6, 15], first_n_dense_layers: 0, combine: $2}
mlp: {is_enabled: $4, top_keys: 0.05, random_keys: 0.0, full_step_schedule: [0, 1, 2, 3, 4, 5, 6, 15],
      first_n_dense_layers: 0}
${5:+step_caching: $5}
YAML
}
for combine in difference merge; do
  settings "attention-$combine" $combine true false
  settings "both-$combine" $combine true true
  settings "both-list-$combine" $combine true true '{skip_step_schedule: [9, 11, 13, 17, 19, 21, 23, 25]}'
  settings "both-adaptive-$combine" $combine true true '{mode: adaptive, threshold: 0.1}'
  # The FLUX preset's attention.
  cat >"$out/settings/flux-attention-$combine.yml" <<YAML
patchify: {is_enabled: true}
attn: {is_enabled: true, should_compress_indices: false, random_keys: 0.0, top_keys: 0.165, full_step_every: 10,
       first_n_dense_layers: 1, recompute_mask: false, combine: $combine}
mlp: {is_enabled: false}
YAML
done
settings mlp merge false true
# All columns kept: dense results, with the column sums of every second step.
cat >"$out/settings/statistics.yml" <<YAML
patchify: {is_enabled: true}
attn: {is_enabled: true, should_compress_indices: false, top_keys: 1.0, random_keys: 0.0, full_step_every: 2,
       first_n_dense_layers: 0, recompute_mask: true}
mlp: {is_enabled: false}
YAML

# compare FOLDER OPTIONS... VARIANT...: over prompts of the suite; the table goes to FOLDER.txt, too.
compare() {
  local folder=$1
  shift
  local arguments=()
  for argument in "$@"; do
    case "$argument" in
      demo | demo-*) arguments+=(--sparsity "$argument") ;;
      *.yml) arguments+=(--sparsity "$out/settings/$argument") ;;
      *) arguments+=("$argument") ;;
    esac
  done
  echo "measure_method: $folder"
  "$program" compare --suite scenes --quiet -o "$out/$folder" "${arguments[@]}" | tee "$out/$folder.txt"
}
for part in "${parts[@]}"; do
  case "$part" in
    variants)
      compare variants --limit 24 {attention,both,both-list,both-adaptive}-{difference,merge}.yml mlp.yml \
        flux-attention-{difference,merge}.yml
      ;;
    all) compare all demo ;;
    long) compare long --limit 8 --steps 50 demo demo-caching both-adaptive-merge.yml ;;
    attention) compare attention --limit 6 statistics.yml ;;
    times) compare times --limit 5 --no-record demo both-adaptive-merge.yml ;;
    *)
      echo "measure_method: unknown part $part" >&2
      exit 2
      ;;
  esac
done
