#!/usr/bin/env bash
# All tests, C++ and Python: installs what they need (system packages too, with apt), builds, runs.
#
#   tests/run.sh                  everything
#   tests/run.sh --no-install     nothing is installed: the tools are there already
#   tests/run.sh -- ARGS          ARGS go to pytest, for example: tests/run.sh -- --deep
#
# NORMKIT_TEST_EXTRAS names more packages for the Python tests: PyTorch and JAX, whose tests are skipped without.
#
# Builds lie in build/ (C++) and .venv-test/ (Python). Exits with an error if any test fails.
set -euo pipefail
cd "$(dirname "$0")/.."

install=yes
while [ $# -gt 0 ]; do
  case "$1" in
    --no-install) install=no ;;
    --) shift; break ;;
    *) echo "usage: tests/run.sh [--no-install] [-- pytest arguments]" >&2; exit 2 ;;
  esac
  shift
done

say() { printf '\n== %s\n' "$1"; }

if [ "$install" = yes ] && command -v apt-get >/dev/null; then
  say "system packages"
  root=""
  [ "$(id -u)" = 0 ] || root=sudo
  packages=(g++ make cmake ninja-build libgtest-dev python3-venv python3-dev clang-19 libomp-19-dev
            libclang-rt-19-dev g++-aarch64-linux-gnu qemu-user)
  missing=()
  for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    $root apt-get update -qq
    # An older distribution has no clang-19; the tests that want it say that they are skipped.
    for package in "${missing[@]}"; do
      DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq "$package" >/dev/null ||
        echo "not installed: $package" >&2
    done
  fi
fi

say "C++: build"
cmake -S . -B build -G Ninja -DNORMKIT_WERROR=ON >/dev/null
cmake --build build

say "C++: tests"
ctest --test-dir build -j2 --output-on-failure

say "C++: consumers"
python3 tests/consumer/run.py --build build

say "Python: build and install"
[ -x .venv-test/bin/python ] || python3 -m venv .venv-test
.venv-test/bin/pip install --quiet --upgrade pip
.venv-test/bin/pip install --quiet --force-reinstall --no-deps .
.venv-test/bin/pip install --quiet ".[test]" ${NORMKIT_TEST_EXTRAS:-}

say "Python: tests"
.venv-test/bin/python -m pytest tests/python -q "$@"
