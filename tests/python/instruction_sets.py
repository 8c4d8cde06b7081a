"""The instruction sets that this processor has, and tests under each of them: in a process of its own."""

import os
import subprocess
import sys

import pytest

every_instruction_set = pytest.mark.parametrize("isa", ("baseline", "avx2", "avx512", "neon"))


def available_isas():
    """What this processor has, from the kernel's own list; "baseline" always."""
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "").split()
    except OSError:
        flags = []
    isas = ["baseline"]
    isas += ["avx2"] if {"avx2", "f16c"} <= set(flags) else []
    isas += ["avx512"] if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= set(flags) else []
    return isas + (["neon"] if "asimd" in flags else [])


def require(isa):
    """No processor has all of them; which one runs is asserted where it does (:func:`printed`)."""
    if isa not in available_isas():
        pytest.skip(f"this processor has no {isa}")


def printed(isa, code):
    """What ``code`` prints where normkit uses ``isa``; it may import the tests' modules."""
    require(isa)
    here = os.path.dirname(os.path.abspath(__file__))
    path = os.pathsep.join([here, os.path.dirname(here), *sys.path])
    run = subprocess.run(
        [sys.executable, "-c", f"import normkit; assert normkit.isa() == {isa!r}; {code}"],
        env={**os.environ, "NORMKIT_ISA": isa, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()
