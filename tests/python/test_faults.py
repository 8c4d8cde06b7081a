"""Forks, threads, signals, exits: nothing around a call may hang or break it, and a call leaves no trace."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import checks
import normkit
import numpy as np
import pytest
from reference.operations import OPERATIONS, ROW_OPERATIONS
from reference.recipe import values

pytestmark = [pytest.mark.compares, pytest.mark.alone]
every_operation = pytest.mark.parametrize("op", OPERATIONS, ids=str)
every_row_operation = pytest.mark.parametrize("op", ROW_OPERATIONS, ids=str)
SCRIPTS = Path(__file__).with_name("scripts")
posix_only = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and POSIX signals")


def run_script(name, *arguments, timeout=120, **environment):
    """Runs scripts/<name>.py in a fresh interpreter; it must print "ok" last and exit with 0."""
    result = subprocess.run(
        [sys.executable, str(SCRIPTS / f"{name}.py"), *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert result.returncode == 0, f"exit status {result.returncode}\n{result.stdout}{result.stderr}"
    assert result.stdout.strip().endswith("ok"), result.stdout + result.stderr
    checks.COUNT.values += 1
    return result.stdout


def large(op, rows=600, n=1000):
    case = op.make_case(rows, n)
    return case, case.from_sets(values((rows, n), "float32", "spread", 1))


@posix_only
@every_operation
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:.*fork.*:RuntimeWarning")
def test_fork_after_a_parallel_call(op, threads):
    """OpenBLAS#294: the child inherits a pool without its threads and waits for ever."""
    threads(3)
    case, x = large(op)
    expected = checks.digest(op.forward(x, case))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            again = checks.digest(op.forward(x, case), op.backward(x, x, case)[0])
            normkit.set_num_threads(2)
            status = 0 if checks.digest(op.forward(x, case)) == expected and again else 2
        finally:
            os._exit(status)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        time.sleep(0.01)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert os.waitstatus_to_exitcode(status) == 0
    assert checks.digest(op.forward(x, case)) == expected, "the parent after the fork"


@pytest.mark.skipif(sys.platform != "linux", reason="finds the OpenMP runtime in /proc")
@pytest.mark.parametrize("parent", ("openmp", "alone"))
def test_fork_before_the_first_call(parent):
    """The runtime is everybody's: a child may lack threads that normkit never started."""
    run_script("fork_of_threads", parent, OPENBLAS_NUM_THREADS="1")


@posix_only
@pytest.mark.parametrize("method", ("fork", "spawn", "forkserver"))
def test_multiprocessing(method):
    run_script("multiprocessing_call", method)


@every_operation
def test_8_threads_at_once(op, threads):
    """Python threads with arrays of their own and one input shared; every one gets the serial bits."""
    threads(2)
    shared_case, shared = large(op)
    problems = [large(op, rows=100 + 50 * k, n=700 + k) for k in range(8)]
    expected = [checks.digest(op.forward(x, case), op.backward(x, x, case)[0]) for case, x in problems]
    expected_shared = checks.digest(op.forward(shared, shared_case))
    barrier, failures = threading.Barrier(8), []

    def work(k):
        try:
            case, x = problems[k]
            barrier.wait(timeout=30)
            for _ in range(5):
                if checks.digest(op.forward(x, case), op.backward(x, x, case)[0]) != expected[k]:
                    failures.append(f"thread {k}: other bits")
                if checks.digest(op.forward(shared, shared_case)) != expected_shared:
                    failures.append(f"thread {k}: other bits from the shared input")
        except BaseException as error:
            failures.append(f"thread {k}: {error!r}")

    workers = [threading.Thread(target=work, args=(k,), daemon=True) for k in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert not any(worker.is_alive() for worker in workers), "a thread hangs"
    assert not failures, failures


def test_thread_count_changes_during_calls(threads):
    op = OPERATIONS[0]
    case, x = large(op)
    expected = checks.digest(op.forward(x, case))
    stop = threading.Event()

    def change():
        count = 0
        while not stop.is_set():
            count = count % 7 + 1
            normkit.set_num_threads(count)

    changer = threading.Thread(target=change, daemon=True)
    changer.start()
    try:
        for _ in range(30):
            assert checks.digest(op.forward(x, case)) == expected
    finally:
        stop.set()
        changer.join(timeout=30)


def test_the_gil_is_released():
    """Another Python thread makes progress while a long call runs."""
    x = np.ones((20_000, 1000), np.float32)
    ticks, stop = [0], threading.Event()

    def tick():
        while not stop.is_set():
            ticks[0] += 1
            time.sleep(0.0002)

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        with normkit.num_threads(1):
            before = ticks[0]
            for _ in range(5):
                normkit.layer_norm(x, (1000,), out=x)
            during = ticks[0] - before
    finally:
        stop.set()
        ticker.join(timeout=30)
    checks.COUNT.values += 1
    assert during > 3


@pytest.mark.parametrize("during", ("idle", "calls"))
def test_exit_with_the_pool_alive(during):
    started = time.monotonic()
    run_script("exit_with_pool", during, timeout=60)
    assert time.monotonic() - started < 30


@posix_only
@every_row_operation
def test_keyboard_interrupt(op):
    """Ctrl-C ends a long call early; later calls are right."""
    run_script("interrupt", op.name, timeout=180)


@posix_only
def test_floating_point_environment():
    """Import and calls keep rounding mode and subnormals, and are right whatever the caller's are."""
    run_script("control_word")


@pytest.mark.parametrize(
    ("environment", "expected"),
    (
        ({"NORMKIT_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "2"}, 2),
        ({"NORMKIT_NUM_THREADS": "1", "OMP_NUM_THREADS": "4"}, 1),
        ({"NORMKIT_NUM_THREADS": "", "OMP_NUM_THREADS": "4"}, 4),
        ({"NORMKIT_NUM_THREADS": "1024"}, 1024),
        ({"OMP_NUM_THREADS": "0"}, None),
        ({"OMP_NUM_THREADS": "-5"}, None),
        ({"OMP_NUM_THREADS": "many"}, None),
        ({"OMP_NUM_THREADS": "99999999999999999999"}, None),
        ({"OMP_NUM_THREADS": "3,2"}, 3),
    ),
)
def test_thread_count_from_the_environment(environment, expected):
    """Nonsense that is OpenMP's neither hangs nor crashes (llama.cpp#190: 0 threads, an infinite loop)."""
    clean = {k: v for k, v in os.environ.items() if k not in ("NORMKIT_NUM_THREADS", "OMP_NUM_THREADS")}
    code = (
        "import numpy, normkit; n = normkit.get_num_threads();"
        "y = normkit.layer_norm(numpy.arange(1e6, dtype='f').reshape(1000, 1000), 1000);"
        "assert abs(float(y[0, 0]) + 1.7303) < 1e-3; print(n)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    count = int(result.stdout)
    assert count >= 1
    assert expected is None or count == expected
    checks.COUNT.values += 1


@pytest.mark.parametrize("text", ("0", "-5", "many", "3x", "3,2", "1025", "99999999999999999999", "1" * 99))
def test_a_wrong_thread_count_is_an_import_error(text):
    environment = {**os.environ, "NORMKIT_NUM_THREADS": text}
    result = subprocess.run(
        [sys.executable, "-c", "import normkit"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 1
    expected = f"NORMKIT_NUM_THREADS is '{text[:40]}'; it should be a number of threads, 1 to 1024"
    assert f"ImportError: {expected}" in result.stderr
    checks.COUNT.values += 1


def test_set_num_threads(threads):
    threads(5)
    assert normkit.get_num_threads() == 5
    with normkit.num_threads(2):
        assert normkit.get_num_threads() == 2
        with pytest.raises(ZeroDivisionError), normkit.num_threads(3):
            raise ZeroDivisionError
        assert normkit.get_num_threads() == 2
    assert normkit.get_num_threads() == 5
    for bad in (0, -1, -(2**31), 2**40):
        with pytest.raises((ValueError, OverflowError)):
            normkit.set_num_threads(bad)
        assert normkit.get_num_threads() == 5
    for bad in (None, "2", 2.5):
        with pytest.raises(TypeError):
            normkit.set_num_threads(bad)
    threads(1000)
    op = OPERATIONS[0]
    case, x = large(op)
    y = op.forward(x, case)
    threads(1)
    checks.assert_same_bits(op.forward(x, case), y, "1000 threads")


def test_memory_does_not_grow():
    run_script("no_leak")
