"""Turns measurements into tables and plain data."""

from __future__ import annotations

import os
import platform
from typing import Any

import normkit
from normkit import _info
from normkit.bench.measure import Group, Timing
from normkit.bench.peers import Peer

NAME_WIDTH = 10


def header(peers: list[Peer], samples: int, memory: str) -> dict[str, Any]:
    """Machine, versions and method, as facts and as lines."""
    names = [name for name in sorted(os.environ) if name.startswith(("OMP_", "NORMKIT_"))]
    environment = {name: os.environ[name] for name in names}
    facts: dict[str, Any] = {
        "processor": _info.processor_name(),
        "usable_processors": _info.usable_processors(),
        "system": f"{platform.system()} {platform.release()}",
        "huge_pages": _huge_pages(),
        "python": platform.python_version(),
        "versions": {peer.name: peer.version for peer in peers},
        "isa": normkit.isa(),
        "memory": memory,
        "samples": samples,
        "environment": environment,
    }
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    lines = [
        f"{facts['processor']}, {facts['usable_processors']} usable processors, {facts['system']}, "
        f"huge pages: {facts['huge_pages']}",
        f"Python {facts['python']}, {versions}; normkit uses {facts['isa']}",
        f"{memory} memory; medians of {samples} samples taken in turn, +- half the distance of the quartiles",
    ]
    lines += [f"{name}={value}" for name, value in environment.items()]
    return {"facts": facts, "lines": lines}


def table(groups: list[Group], peers: list[Peer]) -> str:
    """One line per shape: normkit's own figures, then each peer's time as a multiple of normkit's."""
    case = groups[0].case
    others = [peer.name for peer in peers if peer.name != "normkit"]
    head = f"{'rows x n':<12}{'normkit us':>11}{'+-':>6}{'GB/s':>8}{'memcpy GB/s':>13}{'share':>7} |"
    head += "".join(f"{name:>{NAME_WIDTH}}" for name in others)
    lines = [f"\n{case.operation} {case.which}, {case.dtype}, {case.threads_text}", head]
    lines += [_line(group, others) for group in groups]
    reasons = {f"{name}: {reason}" for group in groups for name, reason in group.absent.items()}
    lines += [f"  - {reason}" for reason in sorted(reasons)]
    errors: dict[str, float] = {}
    for group in groups:
        for name, error in group.wrong.items():
            errors[name] = max(error, errors.get(name, 0.0))
    for name, error in errors.items():
        lines.append(f"  ! {name} differs from float64 by up to {error:.1%} of the largest value")
    return "\n".join(lines)


def latency_table(latencies: dict[str, Timing]) -> str:
    """Nanoseconds per call on one row."""
    own = latencies["normkit"].median
    lines = ["\none call: layer_norm forward, float32, 1x768, 1 thread"]
    lines.append(f"{'':<12}{'ns':>8}{'+-':>6}{'ratio':>8}")
    for name, timing in latencies.items():
        spread = (timing.high - timing.low) / 2
        lines.append(f"{name:<12}{timing.median * 1e9:8.0f}{spread * 1e9:6.0f}{timing.median / own:8.2f}")
    return "\n".join(lines)


def notes(memory: str) -> str:
    """How to read the tables."""
    if memory == "reused":
        outputs = """\
Reused memory: normkit, ONNX Runtime (IO binding) and NumPy write into existing arrays. PyTorch and JAX have
no true out= here and allocate; the C library was told to keep what they free, so they find warm pages."""
    else:
        outputs = "Natural memory: every call of every contender allocates its outputs, as a plain call does."
    return f"""
Right of the bar: time of the peer / time of normkit (above 1: normkit is faster). GB/s counts what must be
read and written at least; memcpy moves as many bytes, on as many threads, which do not wait for one another.
void: memcpy moved by more than 10 % during the group. busy: other processes kept more than 5 % of a
processor, which slows threads that wait for one another out of all proportion. Every backward is given the
saved statistics; only PyTorch's RMSNorm goes through autograd.
{outputs}"""


def as_data(groups: list[Group], latencies: dict[str, Timing]) -> dict[str, Any]:
    """Everything measured, for --json; times in seconds."""
    return {
        "groups": [
            {
                **group.case._asdict(),
                "bytes": group.case.bytes,
                "void": group.void,
                "busy": group.busy,
                "memcpy_before": group.memcpy_before,
                "memcpy_after": group.memcpy_after,
                "others": group.others,
                "timings": {name: timing._asdict() for name, timing in group.timings.items()},
                "wrong": group.wrong,
                "absent": group.absent,
            }
            for group in groups
        ],
        "latencies_1x768": {name: timing._asdict() for name, timing in latencies.items()},
    }


def _line(group: Group, others: list[str]) -> str:
    case, own, copy = group.case, group.timings["normkit"], group.timings["memcpy"]
    speed, copy_speed = case.bytes / own.median / 1e9, case.bytes / copy.median / 1e9
    spread = (own.high - own.low) / 2
    line = f"{f'{case.rows} x {case.n}':<12}{own.median * 1e6:11.1f}{spread * 1e6:6.1f}{speed:8.1f}"
    line += f"{copy_speed:13.1f}{speed / copy_speed:7.0%} |"
    for name in others:
        cell = "-"
        if name in group.timings:
            cell = f"{group.timings[name].median / own.median:.2f}{'!' if name in group.wrong else ''}"
        line += f"{cell:>{NAME_WIDTH}}"
    if "normkit" in group.wrong:
        line += "  normkit WRONG"
    return line + ("  void" if group.void else "") + ("  busy" if group.busy else "")


def _huge_pages() -> str:
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled") as file:
            text = file.read()
    except OSError:
        return "unknown"
    return text[text.find("[") + 1 : text.find("]")]
