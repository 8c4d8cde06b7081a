"""The roofline picture: GB/s against size, one panel per operation and thread count, memcpy as the line.

memcpy stands at the size of the operation whose outputs' bytes it copied.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from normkit.bench.measure import Group
from normkit.bench.report import TITLES, caches

MARKERS = {"float32": "o", "bfloat16": "s", "float16": "^", "float64": "D"}
COLUMNS = 4
COLOURS = {
    "normkit": "tab:red",
    "serial": "tab:orange",
    "onednn": "tab:blue",
    "torch": "tab:purple",
    "onnxrt": "tab:green",
    "jax": "tab:brown",
    "numpy": "tab:gray",
}


class MissingMatplotlib(Exception):
    """The picture needs matplotlib; the message says what to do."""


def check(path: str) -> None:
    """Before the measurements: MissingMatplotlib without it, ValueError for an unknown kind of file."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise MissingMatplotlib("--plot needs matplotlib: pip install matplotlib") from None
    kinds = FigureCanvasBase.get_supported_filetypes()
    if _kind(path) not in kinds:
        raise ValueError(f"--plot is {path!r}; its ending should be one of {', '.join(sorted(kinds))}")


def write(groups: list[Group], path: str) -> None:
    """Writes the picture; its type follows the file's name. OSError or ValueError if that is impossible."""
    from matplotlib.figure import Figure

    panels: dict[str, list[Group]] = {}
    for group in groups:
        case = group.case
        words = [case.operation, case.which, case.layout if case.geometry.rank == 4 else "", case.remarks]
        panels.setdefault(f"{' '.join(filter(None, words))}, {case.threads_text}", []).append(group)
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5 * columns, 3.4 * rows), layout="constrained")
    for place, (title, together) in enumerate(sorted(panels.items()), 1):
        axes = figure.add_subplot(rows, columns, place)
        _panel(axes, together)
        axes.set_title(title, fontsize=9)
    figure.savefig(path, dpi=110, format=_kind(path))


def _kind(path: str) -> str:
    return Path(path).suffix.lstrip(".").lower() or "png"


def _panel(axes: Any, groups: list[Group]) -> None:
    line = sorted((group.case.bytes, group.memcpy_speed / 1e9) for group in groups)
    axes.plot(*zip(*line, strict=True), color="black", marker="_", label="memcpy", zorder=1)
    names = [name for name in COLOURS if any(name in group.timings for group in groups)]
    for name in names:
        for dtype, marker in MARKERS.items():
            points = sorted(
                (group.case.bytes, group.case.bytes / group.timings[name].median / 1e9)
                for group in groups
                if name in group.timings and group.case.dtype == dtype
            )
            if points:
                label = f"{TITLES.get(name, name)} {dtype}"
                style = {"color": COLOURS[name], "marker": marker, "markersize": 5, "linewidth": 0.8}
                axes.plot(*zip(*points, strict=True), label=label, **style)
    sizes = [size for size, _ in line]
    for name, size in caches():
        if min(sizes) < size < max(sizes):
            axes.axvline(size, color="lightgray", linewidth=0.8, zorder=0)
            axes.annotate(name, (size, 1), xycoords=("data", "axes fraction"), va="top", fontsize=7)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("bytes read and written", fontsize=8)
    axes.set_ylabel("GB/s", fontsize=8)
    axes.legend(fontsize=6, framealpha=0.5)
