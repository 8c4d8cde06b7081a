"""What is timed: a case is one line of data, and everything about it follows from that line."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from normkit.bench import memory
from normkit.bench.operations import OPERATIONS, Array, Arrays, Operation, Shape, statistics

PASSES = ["forward", "backward", "both"]
DTYPES = ["float32", "bfloat16", "float64", "float16"]
MEMORY = ["reused", "natural"]
LAYOUTS = ["nchw", "nhwc"]
# Largest error allowed, as a share of the largest value: far above rounding, far below a mistake.
TOLERANCE = {"float32": 1e-4, "float64": 1e-10, "float16": 1e-2, "bfloat16": 5e-2}


class Case(NamedTuple):
    """One group of measurements.

    ``which``: forward, backward, or both in a row. ``memory``: *reused* (outputs go to existing memory) or
    *natural* (every call allocates them). ``call``: a function, or a module. ``arrays``: the kind that
    normkit is given. ``peers``: who takes part, where they are loaded; empty: all. ``goal``: its line in the
    suite "goals"; ``limit``: time of a peer / time of normkit below which normkit counts as behind.
    """

    operation: str
    which: str
    dtype: str
    shape: Shape
    threads: int = 1
    memory: str = "reused"
    layout: str = "nchw"
    call: str = "function"
    arrays: str = "numpy"
    peers: tuple[str, ...] = ()
    goal: str = ""
    limit: float = 1.0

    @property
    def geometry(self) -> Operation:
        """The operation's entry."""
        return OPERATIONS[self.operation]

    @property
    def threads_text(self) -> str:
        """1 thread, 2 threads, ..."""
        return "1 thread" if self.threads == 1 else f"{self.threads} threads"

    @property
    def size_text(self) -> str:
        """512x768, 2x64x56x56 nhwc"""
        size = "x".join(map(str, self.shape))
        return f"{size} {self.layout}" if self.geometry.rank == 4 else size

    @property
    def remarks(self) -> str:
        """What is not as usual: natural memory, a module, PyTorch tensors."""
        words = [self.memory] if self.memory == "natural" else []
        words += [self.call] if self.call == "module" else []
        return ", ".join(words + (["torch tensors"] if self.arrays == "torch" else []))

    @property
    def kind(self) -> str:
        """Operation, pass and dtype."""
        which = "forward + backward" if self.which == "both" else self.which
        return f"{self.operation} {which}, {self.dtype}"

    @property
    def name(self) -> str:
        """All but the threads, for people and for ``--case``."""
        return f"{self.kind}, {self.size_text}" + (f" ({self.remarks})" if self.remarks else "")

    @property
    def channels(self) -> int:
        """The length of weight and bias."""
        return self.shape[1]

    @property
    def output_bytes(self) -> int:
        """The large results: y, dx, the sum."""
        results = 2 if self.which == "both" or self.geometry.residual else 1
        return results * self._x_bytes

    @property
    def bytes(self) -> int:
        """What must be read and written: large arrays once, parameters and their gradients."""
        operation = self.geometry
        forward = 4 if operation.residual else 2
        large = {"forward": forward, "backward": 3, "both": forward + 3}[self.which]
        parameters = {"forward": 1, "backward": 2, "both": 3}[self.which] + operation.centred
        parameters = 0 if operation.formula else parameters
        return large * self._x_bytes + numpy_dtype(self.dtype).itemsize * self.channels * parameters

    @property
    def _x_bytes(self) -> int:
        return numpy_dtype(self.dtype).itemsize * math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.name}, {self.threads_text}"


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy type of that name; bfloat16 comes from ml_dtypes."""
    scalar: Any = name
    if name == "bfloat16":
        import ml_dtypes

        scalar = ml_dtypes.bfloat16
    dtype: np.dtype[Any] = np.dtype(scalar)
    return dtype


def make_arrays(case: Case) -> Arrays:
    """Normally distributed inputs, in the case's memory layout; only those that the case has."""
    rng, dtype, operation = np.random.default_rng(0), numpy_dtype(case.dtype), case.geometry

    def normal(*shape: int) -> Array:
        return memory.copy_of(rng.standard_normal(shape, dtype=np.float32).astype(dtype, copy=False))

    def large() -> Array:
        if case.layout == "nhwc" and operation.rank == 4:
            n, channels, *space = case.shape
            view: Array = normal(n, *space, channels).transpose(0, 3, 1, 2)
            return view
        return normal(*case.shape)

    x, weight, bias = large(), normal(case.channels), normal(case.channels)
    dy = large() if case.which != "forward" else None
    residual = large() if operation.residual else None
    running_mean = running_var = mean = rstd = None
    if operation.running:
        running_mean = normal(case.channels)
        running_var = rng.uniform(0.5, 2, case.channels).astype(dtype)
    if case.which == "backward":
        mean, rstd = statistics(operation, x.astype(np.float64).reshape(operation.view(case.shape)))
    if not operation.centred:
        bias = mean = None  # type: ignore[assignment]
    return Arrays(x, dy, weight, bias, residual, running_mean, running_var, mean, rstd)
