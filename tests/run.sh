#!/usr/bin/env bash
# All tests, C++ and Python: installs what they need (system packages too, with apt), builds, runs.
#
#   tests/run.sh                  everything
#   tests/run.sh --no-install     nothing is installed: the tools are there already
#   tests/run.sh -- ARGS          ARGS go to pytest, for example: tests/run.sh -- --deep
#
# NORMKIT_TEST_EXTRAS names more packages for the Python tests: PyTorch and JAX, whose tests are skipped without.
#
# Builds lie in build/ (C++), build/wheel and .venv-test/ (Python). Exits with an error if any test fails.
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

if [ "$install" = yes ] && command -v apt-get >/dev/null; then
  printf '\n==== system packages\n'
  root=""
  [ "$(id -u)" = 0 ] || root=sudo
  packages=(g++ make cmake ninja-build ccache libgtest-dev python3-venv python3-dev clang-19 libomp-19-dev
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

. tests/stages.sh
trap 'stages_table $?' EXIT

# What is large comes while the C++ part is built.
python=.venv-test/bin/python
prepare_python() {
  [ -x "$python" ] || python3 -m venv .venv-test
  "$python" -m pip install --quiet --upgrade pip
  "$python" -m pip install --quiet scikit-build-core nanobind numpy ${NORMKIT_TEST_EXTRAS:-}
}
prepare_python & prepared=$!

stage_begins "C++: build"
cmake -S . -B build -G Ninja -DNORMKIT_WERROR=ON >/dev/null
cmake --build build

# Two tests at a time, and two processes of pytest, with two threads each on two processors: one that waits must not
# spin.
stage_begins "C++: tests"
OMP_WAIT_POLICY=passive ctest --test-dir build -j2 --output-on-failure

stage_begins "C++: consumers"
python3 tests/consumer/run.py --build build --jobs 2

stage_begins "Python: build and install"
wait "$prepared"
rm -rf build/wheel
# Not isolated: so tests/cuda_python.sh, which has the same nanobind, finds its objects in the ccache.
"$python" -m pip wheel --quiet --no-deps --no-build-isolation --check-build-dependencies --wheel-dir build/wheel . \
  -Ccmake.define.NORMKIT_WERROR=ON
"$python" -m pip install --quiet --force-reinstall --no-deps build/wheel/*.whl
wheel=$(echo build/wheel/*.whl)
"$python" -m pip install --quiet "$wheel[test]"

stage_begins "Python: tests, side by side"
none=5  # pytest's status where ARGS left no test over
status=0
OMP_WAIT_POLICY=passive "$python" -m pytest tests/python -q -n 2 -m "not alone" "$@" || status=$?
[ $status = 0 ] || [ $status = $none ] || exit $status

stage_begins "Python: tests, one by one"
again=0
"$python" -m pytest tests/python -q -m alone "$@" || again=$?
[ $again = 0 ] || { [ $again = $none ] && [ $status = 0 ]; } || exit $again
