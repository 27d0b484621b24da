#!/usr/bin/env bash
# From a fresh machine to a picture: installs what is missing, builds the command line, generates on whatever hardware
# there is, and says where the picture is.
#   scripts/demo.sh ["a prompt"]
set -euo pipefail
cd "$(dirname "$0")/.."
prompt=${1:-a red circle above a blue square}

scripts/setup.sh
cmake --preset release
cmake --build --preset release --target chipmunk_cli
program=build-release/bin/chipmunk
mkdir -p out

if [ -f models/scenes/model_index.json ]; then
  "$program" generate --prompt "$prompt" --seed 9 -o out/demo.png
  echo "The picture of \"$prompt\": $PWD/out/demo.png"
else
  echo "demo: models/scenes is not there; using the test fixture, whose weights are random:"
  echo "demo: its picture is noise and only shows that the whole way from prompt to PNG works."
  "$program" generate --model tests/data/golden/flux-tiny/model --prompt "$prompt" --seed 7 \
    -W 256 -H 256 --steps 4 -o out/demo.png
  echo "The picture (noise): $PWD/out/demo.png"
fi
