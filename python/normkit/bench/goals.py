"""The suites: lists of cases, as data.

"goals" is the comparison that the README prints, one line of it per entry here. "sweep" is made from the
command line's operations, passes, dtypes and shapes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from normkit import _info
from normkit.bench.cases import Case
from normkit.bench.operations import OPERATIONS, Shape

SMALL, LARGE = (2, 64, 56, 56), (32, 64, 56, 56)
HEADS = (64, 128, 256)
# From one row to more than any cache: threads must not cost anything where they gain nothing.
ROWS = (1, 2, 4, 8, 16, 32, 64, 256, 1024, 8192)
# Rows that are no whole number of vectors, and spaces such as 7x7 and 4x4: a run's end must not cost more
# than a run.
TAILS = (31, 63, 100, 127, 769, 1000)
SPACES = ((8, 1024, 7, 7), (8, 256, 28, 28), (64, 64, 4, 4))
ONE, MANY, EACH = "one", "many", "each"


class Line(NamedTuple):
    """Cases that differ in shape, dtype and layout only. ``threads``: one, many (all), or each of them."""

    goal: str
    operation: str
    shapes: tuple[Shape, ...]
    peers: str
    which: str = "forward"
    dtypes: str = "float32"
    layouts: str = "nchw"
    memory: str = "reused"
    threads: str = EACH
    call: str = "function"
    arrays: str = "numpy"
    limit: float = 1.0


GOALS = [
    Line("1", "layer_norm", ((512, 768),), "onednn torch onnxrt jax numpy"),
    Line("2", "layer_norm", ((16384, 4096),), "onednn torch onnxrt"),
    Line("2", "rms_norm", ((16384, 4096),), "torch onnxrt"),
    Line("3", "layer_norm", ((16384, 4096),), "torch", memory="natural"),
    Line("4", "layer_norm", ((512, 768),), "onednn torch onnxrt", dtypes="bfloat16 float16"),
    Line("5", "rms_norm", ((512, 768),), "torch onnxrt"),
    Line("5", "rms_norm", ((64, 4096),), "torch onnxrt", dtypes="bfloat16"),
    Line("6", "layer_norm", tuple((4096, n) for n in HEADS), "onednn torch onnxrt"),
    Line("6", "rms_norm", tuple((4096, n) for n in HEADS), "torch onnxrt"),
    Line("7", "add_layer_norm", ((512, 768),), "torch onnxrt"),
    Line("7", "add_rms_norm", ((512, 768),), "torch onnxrt"),
    Line("8", "layer_norm", ((4096, 768),), "onednn torch", "backward", "float32 bfloat16"),
    Line("9", "rms_norm", ((4096, 768),), "torch", "both", "bfloat16"),
    Line("10", "batch_norm", (SMALL, LARGE), "onednn torch"),
    Line("11", "batch_norm", (SMALL, LARGE), "onednn torch", layouts="nhwc"),
    Line("12", "batch_norm", (SMALL, LARGE), "onednn torch", "backward", layouts="nchw nhwc"),
    Line("13", "batch_norm_inference", (SMALL, LARGE), "onednn torch onnxrt", layouts="nchw nhwc"),
    Line("14", "instance_norm", (SMALL, LARGE), "torch onnxrt", layouts="nchw nhwc"),
    Line("15", "group_norm", (SMALL, LARGE), "torch onnxrt", layouts="nchw nhwc"),
    Line("16", "layer_norm_channels", ((8, 96, 56, 56),), "torch"),
    Line("17", "layer_norm", ((1, 768),), "torch onnxrt", threads=ONE),
    Line("17", "layer_norm", ((1, 768),), "torch", memory="natural", threads=ONE, call="module"),
    Line("18", "layer_norm", ((1, 768),), "torch", threads=ONE, arrays="torch"),
    Line("18", "layer_norm", ((1, 768),), "torch", memory="natural", threads=ONE, arrays="torch"),
    Line("19", "layer_norm", ((128, 768),), "serial", threads=MANY),
    Line("19", "normalize_p3", ((32, 768),), "serial", threads=MANY),
    Line("20", "layer_norm", tuple((rows, 768) for rows in ROWS), "serial", threads=MANY, limit=0.95),
    Line("20", "layer_norm", ((4, 768), (32, 768)), "serial", "backward", threads=MANY, limit=0.95),
    Line("20", "batch_norm", ((1, 16, 8, 8), (2, 64, 14, 14)), "serial", threads=MANY, limit=0.95),
    Line("21", "layer_norm", tuple((1024, n) for n in TAILS), "torch", threads=ONE),
    Line("21", "rms_norm", tuple((1024, n) for n in TAILS), "torch", threads=ONE),
    Line("21", "layer_norm", ((1024, 100), (1024, 769)), "torch", "backward", threads=ONE),
    Line("22", "batch_norm_inference", SPACES, "torch", layouts="nchw nhwc", threads=ONE),
    Line("22", "batch_norm", SPACES, "torch", layouts="nchw nhwc", threads=ONE),
    Line("22", "batch_norm", SPACES, "torch", "backward", layouts="nchw nhwc", threads=ONE),
    Line("22", "instance_norm", SPACES, "torch", threads=ONE),
    Line("22", "group_norm", SPACES, "torch", threads=ONE),
]


def goals(thread_counts: list[int]) -> list[Case]:
    """Every line on every thread count that it wants; lines for many threads need more than one."""
    cases = []
    for line in GOALS:
        wanted = {ONE: [1], MANY: [max(thread_counts)], EACH: thread_counts}[line.threads]
        for threads in wanted:
            if threads not in thread_counts or (line.threads == MANY and threads == 1):
                continue
            cases += [
                Case(
                    line.operation,
                    line.which,
                    dtype,
                    shape,
                    threads,
                    line.memory,
                    layout,
                    line.call,
                    line.arrays,
                    tuple(line.peers.split()),
                    line.goal,
                    line.limit,
                )
                for dtype in line.dtypes.split()
                for shape in line.shapes
                for layout in line.layouts.split()
            ]
    return cases


def sweep(
    operations: Iterable[str],
    passes: Iterable[str],
    dtypes: Iterable[str],
    shapes: Iterable[Shape],
    layouts: Iterable[str],
    memory: str,
    thread_counts: list[int],
) -> list[Case]:
    """All combinations that exist."""
    cases = []
    for operation in operations:
        geometry = OPERATIONS[operation]
        fitting = [shape for shape in shapes if len(shape) == geometry.rank]
        for which in passes:
            if which != "forward" and geometry.forward_only:
                continue
            for dtype in dtypes:
                for layout in layouts if geometry.rank == 4 else ["nchw"]:
                    for threads in thread_counts:
                        cases += [Case(operation, which, dtype, s, threads, memory, layout) for s in fitting]
    return cases


def default_threads() -> list[int]:
    """One, and every processor that this process may use."""
    return sorted({1, _info.usable_processors()})
