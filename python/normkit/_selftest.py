"""``normkit selftest``: about ten seconds of accuracy and sameness checks on this very machine.

Accuracy: LayerNorm and RMSNorm, forward and backward, against a two-pass reference in NumPy's long double
that shares nothing with the kernels. Sameness: one digest over outputs and gradients, equal for every thread
count, every split of the batch and every instruction set that this processor has, and equal to the digest of
all other machines.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import normkit
from normkit import _selftest_reference as reference
from normkit._options import integer
from normkit._selftest_reference import Array

SIZES = [1, 2, 7, 31, 33, 257, 768, 1025, 4097]
ROWS = 5
EPS = 1e-5
DIGEST_DTYPES = (np.float32, np.float64, np.float16)
DIGEST_SHAPES = [(3, 1), (331, 771), (5, 4097)]
# SHA-256 over digest(); whoever changes the numerical contract on purpose prints the new one with --digest.
PUBLISHED_DIGEST = "e1eec5c7890a399fb30b019377590492e1d8bfca1124818e04f9888ced26fc08"


class Family(NamedTuple):
    """A kind of input: a name and what makes n float64 values per row."""

    name: str
    make: Callable[[np.random.Generator, tuple[int, int]], Array]


FAMILIES = [
    Family("normal", lambda rng, shape: rng.standard_normal(shape)),
    Family("mean 1e3, std 1", lambda rng, shape: 1e3 + rng.standard_normal(shape)),
    Family("mean 1e4, std 0.01", lambda rng, shape: 1e4 + 0.01 * rng.standard_normal(shape)),
    Family("lognormal(3)", lambda rng, shape: rng.lognormal(0, 3, shape)),
    Family("Cauchy", lambda rng, shape: rng.standard_cauchy(shape)),
    Family("one outlier of 1e30", lambda rng, shape: _with_outlier(rng.standard_normal(shape), 1e30)),
    Family("all equal", lambda rng, shape: np.broadcast_to(rng.standard_normal((shape[0], 1)), shape)),
    Family("scale 1e-20", lambda rng, shape: 1e-20 * rng.standard_normal(shape)),
    Family("scale 1e30", lambda rng, shape: 1e30 * rng.standard_normal(shape)),
]


class Tally:
    """Counts checks and prints those that fail."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    def check(self, good: bool, what: str, detail: str = "") -> None:
        """Counts one check; a failed one is printed."""
        if good:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAILED  {what}{': ' if detail else ''}{detail}", flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``normkit selftest``."""
    parser.add_argument("--seed", type=integer(0), default=0, help="seed of the random inputs (default: 0)")
    parser.add_argument("--digest", action="store_true", help="only print the digest of this machine")


def run(options: argparse.Namespace) -> int:
    """Runs all checks; the exit code is 0 if none failed, else 1."""
    if options.digest:
        print(digest())
        return 0
    tally = Tally()
    print(f"normkit {normkit.__version__}, {normkit.isa()}, {normkit.get_num_threads()} threads", flush=True)
    for dtype in _dtypes():
        _check_accuracy(tally, dtype, options.seed)
    _check_threads(tally)
    _check_splits(tally, options.seed)
    _check_instruction_sets(tally)
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


def digest() -> str:
    """SHA-256 over results of both operations, forward and backward; the inputs are equal on all machines."""
    state = hashlib.sha256()
    for dtype, (rows, n) in itertools.product(DIGEST_DTYPES, DIGEST_SHAPES):
        x, dy, weight, bias = _exact_inputs(rows, n, np.dtype(dtype))
        for results in _all_results(x, dy, weight, bias):
            for array in results:
                state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()


def _dtypes() -> Iterator[np.dtype[Any]]:
    yield np.dtype(np.float32)
    if reference.holds_float64():
        yield np.dtype(np.float64)
    else:
        print("skipped float64: long double is no wider here")
    yield np.dtype(np.float16)
    try:
        import ml_dtypes
    except ImportError:
        print("skipped bfloat16: ml_dtypes is not installed")
    else:
        yield np.dtype(ml_dtypes.bfloat16)


def _check_accuracy(tally: Tally, dtype: np.dtype[Any], seed: int) -> None:
    """Every family and size: the normalized value, the affine result, the gradients within their bounds."""
    rng = np.random.default_rng(seed)
    worst = {operation: 0.0 for operation in reference.OPERATIONS}
    for family, n in itertools.product(FAMILIES, SIZES):
        with np.errstate(over="ignore"):
            x = family.make(rng, (ROWS, n)).astype(dtype)
        if not np.isfinite(x.astype(np.float64)).all():
            continue  # beyond the range of the type
        dy, weight, bias = (rng.standard_normal(shape).astype(dtype) for shape in ((ROWS, n), n, n))
        for operation in reference.OPERATIONS:
            exact = reference.Exact(operation, x, dy, weight, bias, EPS)
            what = f"{operation} {dtype.name} [{ROWS}, {n}] {family.name}"
            forward, backward = _functions(operation)
            ulps = exact.normalized_error(forward(x, n, eps=EPS))
            worst[operation] = max(worst[operation], ulps)
            limit = reference.ULP_LIMIT[dtype.name]
            tally.check(ulps <= limit, f"{what}, normalized value", f"{ulps:.3g} ULP, limit {limit}")
            ratio = exact.affine_error(forward(x, n, weight, bias=bias, eps=EPS))
            tally.check(ratio <= 1, f"{what}, weight and bias", f"{ratio:.3g} of the bound")
            gradients = backward(dy, x, n, weight, bias=bias, eps=EPS)
            for name, ratio in exact.gradient_errors(*gradients).items():
                tally.check(ratio <= 1, f"{what}, {name}", f"{ratio:.3g} of the bound")
    measured = ", ".join(f"{operation} {ulps:.2f}" for operation, ulps in worst.items())
    print(f"accuracy of {dtype.name}, worst ULP of the normalized value: {measured}", flush=True)


def _check_threads(tally: Tally) -> None:
    """The digest for several thread counts, and the published one."""
    expected = digest()
    for threads in (1, 2, 3, 7):
        with normkit.num_threads(threads):
            tally.check(digest() == expected, f"same bits on {threads} threads")
    tally.check(expected == PUBLISHED_DIGEST, "same bits as published", f"this machine has {expected}")
    print(f"digest {expected[:16]}", flush=True)


def _check_splits(tally: Tally, seed: int) -> None:
    """A row's result does not depend on the rows around it, nor on working in place."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((64, 771), dtype=np.float32)
    weight, bias = rng.standard_normal((2, 771), dtype=np.float32)
    for operation in reference.OPERATIONS:
        forward, _ = _functions(operation)
        whole = forward(x, 771, weight, bias=bias)
        for rows in (1, 2, 3, 5, 8, 63):
            parts = [forward(x[begin : begin + rows], 771, weight, bias=bias) for begin in range(0, 64, rows)]
            same = np.concatenate(parts).tobytes() == whole.tobytes()
            tally.check(same, f"{operation}: same bits in batches of {rows} rows")
        in_place = x.copy()
        forward(in_place, 771, weight, bias=bias, out=in_place)
        tally.check(in_place.tobytes() == whole.tobytes(), f"{operation}: same bits in place")


def _check_instruction_sets(tally: Tally) -> None:
    """The digest of a fresh process for each instruction set that this build and this processor share."""
    expected = digest()
    available = normkit.show_config(mode="dicts")["isa available"].split()
    command = [sys.executable, "-m", "normkit", "selftest", "--digest"]
    for isa in available:
        environment = {**os.environ, "NORMKIT_ISA": isa}
        child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        same = child.returncode == 0 and child.stdout.strip() == expected
        tally.check(same, f"same bits with NORMKIT_ISA={isa}", child.stderr.strip()[-300:])
    print(f"instruction sets compared: {', '.join(available)}", flush=True)


def _functions(operation: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    return getattr(normkit, operation), getattr(normkit, f"{operation}_backward")


def _all_results(x: Array, dy: Array, weight: Array, bias: Array) -> Iterator[tuple[Array, ...]]:
    """Outputs, statistics and gradients of both operations."""
    n = x.shape[-1]
    for operation in reference.OPERATIONS:
        forward, backward = _functions(operation)
        yield forward(x, n, weight, bias=bias, eps=EPS, return_stats=True)
        yield backward(dy, x, n, weight, bias=bias, eps=EPS)


def _exact_inputs(rows: int, n: int, dtype: np.dtype[Any]) -> list[Array]:
    """x, dy, weight, bias: multiples of 2^-8 below 8, which all dtypes hold exactly; no libm, no rounding."""
    arrays = []
    for stream, shape in enumerate([(rows, n), (rows, n), (n,), (n,)]):
        bits = _splitmix64(stream, int(np.prod(shape))) >> np.uint64(53)
        arrays.append(((bits.astype(np.float64) - 1024) / 128).astype(dtype).reshape(shape))
    return arrays


def _splitmix64(seed: int, count: int) -> Array:
    """Vigna's splitmix64: ``count`` values of 64 bits."""
    with np.errstate(over="ignore"):
        z: Array = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed << 40)) * np.uint64(
            0x9E3779B97F4A7C15
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return z


def _with_outlier(x: Array, value: float) -> Array:
    x[:, x.shape[1] // 2] = value
    return x
