"""What is timed: the cases, their arrays, and the float64 results that every contender must reproduce."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

OPERATIONS = ["layer_norm", "rms_norm"]
PASSES = ["forward", "backward"]
DTYPES = ["float32", "bfloat16", "float64", "float16"]
MEMORY = ["reused", "natural"]
SHAPES = [(4096, 128), (512, 768), (64, 4096), (4096, 4096)]
EPS = 1e-5
# Largest error allowed, as a share of the largest value: far above rounding, far below a mistake.
TOLERANCE = {"float32": 1e-4, "float64": 1e-10, "float16": 1e-2, "bfloat16": 5e-2}

Array = npt.NDArray[Any]


class Case(NamedTuple):
    """One group of measurements. ``which`` is forward or backward, x has shape [rows, n]."""

    operation: str
    which: str
    dtype: str
    rows: int
    n: int
    threads: int
    memory: str

    @property
    def threads_text(self) -> str:
        """1 thread, 2 threads, ..."""
        return "1 thread" if self.threads == 1 else f"{self.threads} threads"

    @property
    def bytes(self) -> int:
        """What must be read and written: x and y, or dy, x and dx; weight, bias and their gradients."""
        has_bias = self.operation == "layer_norm"
        large, parameters = (2, 1 + has_bias) if self.which == "forward" else (3, 2 + has_bias)
        return numpy_dtype(self.dtype).itemsize * self.n * (large * self.rows + parameters)

    def __str__(self) -> str:
        return f"{self.operation} {self.which}, {self.dtype} {self.rows}x{self.n}, {self.threads_text}"


class Arrays(NamedTuple):
    """Inputs of a case, the same memory for every contender where it can take it, and the statistics of x."""

    x: Array
    dy: Array
    weight: Array
    bias: Array | None  # RMSNorm has none
    mean: Array | None
    rstd: Array


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy type of that name; bfloat16 comes from ml_dtypes."""
    scalar: Any = name
    if name == "bfloat16":
        import ml_dtypes

        scalar = ml_dtypes.bfloat16
    dtype: np.dtype[Any] = np.dtype(scalar)
    return dtype


def make_arrays(case: Case) -> Arrays:
    """Normally distributed inputs."""
    rng, dtype = np.random.default_rng(0), numpy_dtype(case.dtype)
    x, dy = (rng.standard_normal((case.rows, case.n), dtype=np.float32).astype(dtype) for _ in range(2))
    weight, bias = (rng.standard_normal(case.n, dtype=np.float32).astype(dtype) for _ in range(2))
    _, mean, rstd = _statistics(case, x.astype(np.float64))
    return Arrays(x, dy, weight, bias if mean is not None else None, mean, rstd)


def expected(case: Case, arrays: Arrays) -> tuple[Array, ...]:
    """(y,) or (dx, dweight[, dbias]) in float64."""
    centred, mean, rstd = _statistics(case, arrays.x.astype(np.float64))
    xhat = np.multiply(centred, rstd, out=centred)
    weight = arrays.weight.astype(np.float64)
    if case.which == "forward":
        y = np.multiply(xhat, weight, out=xhat)
        return (y if arrays.bias is None else y + arrays.bias.astype(np.float64),)
    dy = arrays.dy.astype(np.float64)
    gradients = [np.einsum("ri,ri->i", dy, xhat)] + ([] if mean is None else [dy.sum(axis=0)])
    g = np.multiply(dy, weight, out=dy)
    b = np.einsum("ri,ri->r", g, xhat)[:, None] / case.n
    if mean is not None:
        g = g - g.mean(axis=-1, keepdims=True)
    return ((g - xhat * b) * rstd, *gradients)


def error(computed: tuple[Array, ...], exact: tuple[Array, ...]) -> float:
    """Largest difference as a share of the largest exact value, over all results."""
    worst = 0.0
    for got, want in zip(computed, exact, strict=True):
        difference = float(np.max(np.abs(np.asarray(got).astype(np.float64) - want)))
        worst = max(worst, difference / float(np.max(np.abs(want)))) if difference == difference else np.inf
    return worst


def _statistics(case: Case, x: Array) -> tuple[Array, Array | None, Array]:
    """x minus its mean, mean (None for RMSNorm), rstd."""
    mean = x.mean(axis=-1, keepdims=True) if case.operation == "layer_norm" else None
    if mean is not None:
        x -= mean
    return x, mean, 1 / np.sqrt(np.einsum("ri,ri->r", x, x)[:, None] / case.n + EPS)
