#!/usr/bin/env bash
# The device half of the Python package without a GPU: an extension whose CUDA kernels run on the host, and
# tests/python/test_cuda.py with it.
#
#   tests/cuda_python.sh [PYTHON [BUILD]]
#
# PYTHON has pytest, ml_dtypes and nanobind (default: .venv-test, as tests/run.sh leaves it; nanobind is installed
# there). BUILD is a CMake build folder, by default that of tests/run.sh, whose library is then not compiled again.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-$PWD/.venv-test/bin/python}
build=${2:-build}
[ $# -gt 0 ] || "$python" -m pip install --quiet "nanobind>=3.1"

cmake -S . -B "$build" -G Ninja -DNORMKIT_PYTHON=ON -DNORMKIT_CUDA_ON_HOST=ON -DPython_EXECUTABLE="$python" >/dev/null
# The folder stays what it was for whoever builds in it next.
trap 'cmake -S . -B "$build" -DNORMKIT_PYTHON=OFF -DNORMKIT_CUDA_ON_HOST=OFF >/dev/null' EXIT
cmake --build "$build" --target normkit_python

# A package of its own: the one that is installed stays as it is.
package=$build/cuda-on-host
rm -rf "$package"
mkdir -p "$package"
cp -r python/normkit "$package"
rm -f "$package"/normkit/_ext*.so
cp "$build"/python/_ext*.so "$package"/normkit
PYTHONPATH=$package "$python" -m pytest tests/python/test_cuda.py -q -p no:cacheprovider
