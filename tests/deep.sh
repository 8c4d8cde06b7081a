#!/usr/bin/env bash
# What takes too long for every change: hours. Run it before a release, and after a change of what it names.
#
#   tests/deep.sh             all of it
#   tests/deep.sh NAME...     clang sanitized instruction-sets cuda mutations python functions targets
#
# After tests/run.sh, whose builds it uses. tests/README.md says what each part checks and how long it takes.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/stages.sh
trap 'stages_table $?' EXIT

[ $# -gt 0 ] || set -- clang sanitized instruction-sets cuda mutations python functions targets
for part in "$@"; do
  stage_begins "$part"
  case "$part" in
    clang | sanitized) tests/other_builds.sh "$part" --all ;;
    instruction-sets)
      for isa in $(.venv-test/bin/python -c "import normkit; print(normkit._ext._isa_available())"); do
        NORMKIT_ISA=$isa ctest --test-dir build -R '^compiled\.' -j2 --output-on-failure
        NORMKIT_ISA=$isa .venv-test/bin/python -m pytest tests/python -q
      done
      ;;
    cuda) python3 tests/cuda_build.py --all ;;
    mutations) python3 tests/mutations.py ;;
    python) .venv-test/bin/python -m pytest tests/python -q --deep ;;
    targets) python3 tests/targets.py --install ;;
    functions) NORMKIT_DEEP=1 build/tests/cpp/normkit_tests_headers --gtest_filter='Math.*Float*' ;;
    *) echo "no such part: $part" >&2; exit 2 ;;
  esac
done
