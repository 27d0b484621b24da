#!/usr/bin/env bash
# Installs what building and testing Chipmunk needs, on Debian and Ubuntu, as root or through sudo. Says what it does;
# does nothing where everything is there. A CUDA toolkit is used where one is found, never installed.
#   scripts/setup.sh          to build, test and run
#   scripts/setup.sh --dev    also the tools of the static checks (clang 19)
set -euo pipefail

# Debian's oneDNN is configured with OpenCL: its CMake package looks for the headers and the loader.
packages=(g++ cmake ninja-build ccache pkg-config git python3
  libdnnl-dev ocl-icd-opencl-dev libhwy-dev libsentencepiece-dev libutf8proc-dev libpcre2-dev
  libyaml-cpp-dev nlohmann-json3-dev libcli11-dev libfmt-dev libpng-dev
  libgtest-dev libbenchmark-dev)
if [ "${1:-}" = "--dev" ]; then
  packages+=(clang-19 clang-tidy-19 clang-format-19 libclang-rt-19-dev libomp-19-dev)
elif [ -n "${1:-}" ]; then
  echo "usage: scripts/setup.sh [--dev]" >&2
  exit 2
fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "setup: this script knows Debian and Ubuntu only. Install the equivalents of:" >&2
  echo "  ${packages[*]}" >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "setup: all ${#packages[@]} packages are installed"
  exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "setup: root rights are needed to install: ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "setup: installing ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
echo "setup: done"
