"""Threads with little stack: an error where a call needs more, and OpenMP's workers left out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("scripts") / "small_stack.py"


def run(*command, **environment):
    result = subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, (
        f"exit status {result.returncode}\n{result.stdout[-500:]}{result.stderr[-1500:]}"
    )
    return result.stdout.splitlines()


@pytest.mark.report("field trial: a thread of 32 or 64 KiB of stack crashes")
@pytest.mark.parametrize("kib", [32, 64, 96])
def test_a_thread_with_too_little_stack_gets_an_error(kib):
    lines = run(SCRIPT, kib)
    assert len(lines) > 100
    for line in lines:
        assert "refused: " in line and "KiB of stack" in line and "threading.stack_size" in line, line


def test_a_thread_with_just_enough_stack_runs_every_operation():
    least, *lines = run(SCRIPT, "least")
    assert int(least.split()[1]) <= 192
    assert len(lines) > 100
    assert all(line.endswith(" right") for line in lines), [line for line in lines if "right" not in line]


WORKERS = """
import os, normkit as nk, numpy as np
x = np.random.default_rng(1).standard_normal((64, 40, 30, 31))
calls = [
    lambda: nk.layer_norm(x, (40,), axis=1),
    lambda: nk.layer_norm(x, x.shape[1:]),
    lambda: nk.layer_norm_backward(x, x, x.shape[1:])[0],
    lambda: nk.adaptive_instance_norm_backward(x, x, x)[0],
    lambda: nk.switchable_norm(x, np.ones(3), np.ones(3)),
]
for call in calls:
    with nk.num_threads(1):
        expected = call()
    with nk.num_threads(4):
        for _ in range(2):
            assert call().tobytes() == expected.tobytes()
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="reads /proc")
@pytest.mark.report("field trial: OMP_STACKSIZE=64k crashes")
@pytest.mark.parametrize("variable", ["OMP_STACKSIZE", "GOMP_STACKSIZE"])
@pytest.mark.parametrize("size", ["17", "64k", "100", ""])
def test_workers_with_little_stack_run_nothing(variable, size):
    run("-c", WORKERS, **{variable: size or "4M"})
