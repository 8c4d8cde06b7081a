"""Turns measurements into tables, Markdown and plain data."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path
from typing import Any

import normkit
from normkit import _info
from normkit.bench.cases import Case
from normkit.bench.measure import DEFAULT_PEERS, Group, Timing
from normkit.bench.peers import Peer

NAME_WIDTH = 16
TITLES = {
    "onednn": "oneDNN",
    "torch": "PyTorch",
    "onnxrt": "ONNX Runtime",
    "jax": "JAX",
    "numpy": "NumPy",
    "serial": "normkit, 1 thread",
}


def header(peers: list[Peer], samples: int) -> dict[str, Any]:
    """Machine, versions and method, as facts and as lines."""
    prefixes = ("OMP_", "GOMP_", "NORMKIT_NUM", "NORMKIT_ISA")
    environment = {name: os.environ[name] for name in sorted(os.environ) if name.startswith(prefixes)}
    facts: dict[str, Any] = {
        "processor": _info.processor_name(),
        "usable_processors": _info.usable_processors(),
        "caches": {name: size for name, size in caches()},
        "system": f"{platform.system()} {platform.release()}",
        "huge_pages": _huge_pages(),
        "python": platform.python_version(),
        "versions": {peer.name: peer.version for peer in peers if peer.name != "serial"},
        "isa": normkit.isa(),
        "compiler": normkit.show_config("dicts")["compiler"],
        "samples": samples,
        "environment": environment,
    }
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    sizes = ", ".join(f"{name} {_bytes_text(size)}" for name, size in caches())
    lines = [
        f"{facts['processor']}, {facts['usable_processors']} usable processors, {sizes or 'caches unknown'}",
        f"{facts['system']}, huge pages: {facts['huge_pages']}",
        f"Python {facts['python']}, {versions}; normkit uses {facts['isa']}, compiled by {facts['compiler']}",
        f"medians of {samples} samples taken turn by turn, +- half the distance of the quartiles",
    ]
    lines += [f"{name}={value}" for name, value in environment.items()]
    return {"facts": facts, "lines": lines}


class Table:
    """One line per group: normkit's figures, then each peer's time as a multiple of its, and its error."""

    def __init__(self, title: str, cases: list[Case], columns: list[str]) -> None:
        self._columns = [
            name for name in columns if any(name in (case.peers or DEFAULT_PEERS) for case in cases)
        ]
        self._width = max(len(_label(case)) for case in cases)
        head = f"{'':<{self._width}} {'fits':>4} {'normkit us':>11} {'+-':>7} {'GB/s':>6} {'memcpy':>7}"
        head += f" {'share':>6} {'error':>6} |" + "".join(f"{name:>{NAME_WIDTH}}" for name in self._columns)
        self.head = f"\n{title}\n{head}"

    def line(self, group: Group) -> str:
        """One group's."""
        own = group.timings["normkit"]
        line = f"{_label(group.case):<{self._width}} {fits(group.case):>4} {_us(own.median):>11}"
        line += f" {_us(_spread(own)):>7} {group.speed / 1e9:6.1f} {group.memcpy_speed / 1e9:7.1f}"
        line += f" {group.speed / group.memcpy_speed:6.0%} {group.errors['normkit']:6.0e} |"
        for name in self._columns:
            cell = "-"
            if name in group.timings:
                mark = "<" if name in group.behind else ""
                wrong = "!" if name in group.wrong else ""
                cell = f"{mark}{group.ratio(name):.2f} {group.errors[name]:.0e}{wrong}"
            line += f"{cell:>{NAME_WIDTH}}"
        if "normkit" in group.wrong:
            line += "  normkit WRONG"
        if group.behind:
            line += "  BEHIND"
        return line + ("  void" if group.void else "") + ("  busy" if group.busy else "")

    def foot(self, groups: list[Group]) -> list[str]:
        """Who stayed out and why, and who was wrong."""
        lines = [
            f"  - {reason}"
            for reason in sorted({f"{name}: {why}" for group in groups for name, why in group.absent.items()})
        ]
        for name in sorted({name for group in groups for name in group.wrong}):
            error = max(group.errors[name] for group in groups if name in group.wrong)
            lines.append(f"  ! {name} differs from float64 by up to {error:.1%} of the largest value")
        return lines


def markdown(groups: list[Group], columns: list[str], lines: list[str]) -> str:
    """The README's table: one line per case, cells for the thread counts separated by a slash."""
    counts = sorted({group.case.threads for group in groups})
    titles = [TITLES[name] for name in columns]
    text = ["\n".join(f"{line}  " for line in lines), ""]
    text.append(f"Cells: {' / '.join(f'{count} thread' + 's' * (count > 1) for count in counts)}.\n")
    text.append(f"| | case | normkit us | GB/s | of memcpy | worst error | {' | '.join(titles)} |")
    text.append("|---" * (6 + len(titles)) + "|")
    by_case: dict[Case, dict[int, Group]] = {}
    for group in groups:
        by_case.setdefault(group.case._replace(threads=0), {})[group.case.threads] = group
    for case, found in by_case.items():
        present = [found[count] for count in counts if count in found]
        cells = [
            _joined(f"{_us(group.timings['normkit'].median)}{_marks(group)}" for group in present),
            _joined(
                f"{group.speed / 1e9:.0f}" if group.speed >= 2e9 else f"{group.speed / 1e9:.1f}"
                for group in present
            ),
            _joined(f"{group.speed / group.memcpy_speed:.2f}" for group in present),
            f"{max(group.errors['normkit'] for group in present):.0e}",
        ]
        cells += [_joined(_markdown_cell(group, name) for group in present) for name in columns]
        name = case.name if len(present) == len(counts) else str(present[0].case)
        text.append(f"| {case.goal} | {name} | {' | '.join(cells)} |")
    return "\n".join([*text, "", _markdown_notes()])


def behind(groups: list[Group]) -> str:
    """Where normkit loses, in words."""
    losses = [
        f"  {group.case}: {', '.join(f'{name} {group.ratio(name):.2f}' for name in group.behind)}"
        f"{' (void)' if group.void else ' (busy)' if group.busy else ''}"
        for group in groups
        if group.behind
    ]
    void = sum(group.void for group in groups)
    lines = [f"\nnormkit is behind in {len(losses)} of {len(groups)} groups; {void} groups are void."]
    return "\n".join(lines + losses)


def notes() -> str:
    """How to read the tables."""
    return """
Right of the bar: time of the peer / time of normkit (above 1: normkit is faster; < marks where it is
behind), and the peer's worst error. Errors are differences from float64 as a share of the largest value, !
beyond rounding. GB/s counts what must be read and written at least; memcpy copies the outputs' bytes once,
between arrays that stay, on as many threads, which do not wait for one another. fits: the smallest cache that
holds what is read and written (L1 and L2 of all threads together).
void: memcpy moved by more than 10 % during the group. busy: other processes kept more than 5 % of a
processor, which slows threads that wait for one another out of all proportion.
Backwards are given the saved statistics; PyTorch's go through autograd for RMSNorm, InstanceNorm and
LayerNorm over channels. forward + backward: one after the other. oneDNN's weight and bias are float32.
Reused memory: normkit, oneDNN, ONNX Runtime (IO binding) and NumPy write into existing arrays. PyTorch and
JAX have no true out= here and allocate; the C library was told to keep what they free, and that lies on huge
pages as the arrays do. Natural memory: every call of every contender allocates, as a plain call does."""


def as_data(groups: list[Group]) -> dict[str, Any]:
    """Everything measured, for --json; times in seconds."""
    return {
        "groups": [
            {
                **group.case._asdict(),
                "name": group.case.name,
                "bytes": group.case.bytes,
                "output_bytes": group.case.output_bytes,
                "fits": fits(group.case),
                "void": group.void,
                "busy": group.busy,
                "memcpy_before": group.memcpy_before,
                "memcpy_after": group.memcpy_after,
                "others": group.others,
                "timings": {name: timing._asdict() for name, timing in group.timings.items()},
                "ratios": {name: group.ratio(name) for name in group.peers},
                "behind": group.behind,
                "errors": group.errors,
                "wrong": group.wrong,
                "absent": group.absent,
            }
            for group in groups
        ]
    }


def caches() -> list[tuple[str, int]]:
    """(L1, bytes), (L2, bytes), ... of the first processor; empty where the system does not tell."""
    found: dict[str, int] = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        with contextlib.suppress(OSError, ValueError):
            if (folder / "type").read_text().strip() == "Instruction":
                continue
            size = (folder / "size").read_text().strip()
            found[f"L{(folder / 'level').read_text().strip()}"] = int(size.rstrip("K")) * 1024
    return sorted(found.items())


def fits(case: Case) -> str:
    """The smallest cache that holds what is read and written; DRAM if none does."""
    for name, size in caches():
        if case.bytes <= size * (case.threads if name in ("L1", "L2") else 1):
            return name
    return "DRAM"


def _label(case: Case) -> str:
    return f"{case.goal:>2} {case.name}" if case.goal else case.size_text


def _markdown_cell(group: Group, name: str) -> str:
    if name not in group.timings:
        return "-"
    cell = f"{group.ratio(name):.2f}"
    if name in group.wrong:
        cell += " !"
    return f"**{cell}**" if name in group.behind else cell


def _markdown_notes() -> str:
    return (
        "Right of the errors: time of the peer / time of normkit; **below 1 (0.95 in line 20) we lose**. "
        "v: memcpy moved by more than 10 % meanwhile, void; b: other processes were busy; !: that peer's "
        "result is wrong beyond rounding."
    )


def _marks(group: Group) -> str:
    return (" v" if group.void else "") + (" b" if group.busy else "")


def _joined(cells: Any) -> str:
    texts = list(cells)
    return "-" if set(texts) == {"-"} else " / ".join(texts)


def _us(seconds: float) -> str:
    """Microseconds, to three digits or so."""
    value = seconds * 1e6
    return f"{value:.3f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _spread(timing: Timing) -> float:
    return (timing.high - timing.low) / 2


def _bytes_text(size: int) -> str:
    return f"{size >> 10} KiB" if size < 1 << 20 else f"{size >> 20} MiB"


def _huge_pages() -> str:
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled") as file:
            text = file.read()
    except OSError:
        return "unknown"
    return text[text.find("[") + 1 : text.find("]")]
