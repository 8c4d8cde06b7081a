#!/usr/bin/env bash
# The C++ tests in builds other than GCC's own: by clang, and with the sanitizers.
#
#   tests/other_builds.sh clang|sanitized         the kernels of the best instruction set that this processor has
#   tests/other_builds.sh clang|sanitized --all   those of every one, and the header-only tests
#
# The other instruction sets' kernels are compiled in haste, without optimization, so that their warnings and the tests
# that compare them are there.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/stages.sh
kind=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

best=baseline
if grep -qw avx2 /proc/cpuinfo; then best=avx2; fi
if grep -qw avx512bw /proc/cpuinfo; then best=avx512; fi
unused=$(printf '%s\n' baseline avx2 avx512 | grep -vx "$best" | paste -sd';')
targets=(normkit_tests_compiled)
tests='^compiled\.'
without='^$'
if [ "${2:-}" = --all ]; then
  unused=""
  targets+=(normkit_tests_headers)
  tests='^(compiled|headers)\.'
fi

case "$kind" in
  clang)
    options=(-DCMAKE_CXX_COMPILER=clang++-19)
    # Header-only with clang: tests/consumer.
    targets+=(normkit_tests_cuda)
    tests="$tests|^cuda\."
    ;;
  sanitized)
    flags="-fsanitize=address,undefined -fno-sanitize-recover=all -g1 -O1"
    options=(-DCMAKE_BUILD_TYPE=None "-DCMAKE_CXX_FLAGS=$flags")
    without='workers_of_136k'  # frames are larger here
    export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1
    ;;
  *) echo "usage: tests/other_builds.sh clang|sanitized [--all]" >&2; exit 2 ;;
esac

cmake -S . -B "$work" -G Ninja -DNORMKIT_WERROR=ON -DNORMKIT_EXAMPLES=OFF "-DNORMKIT_UNUSED_ISAS=$unused" \
  "${options[@]}" >/dev/null
cmake --build "$work" --target "${targets[@]}"
OMP_WAIT_POLICY=passive ctest --test-dir "$work" -R "$tests" -E "$without" -j2 --output-on-failure
