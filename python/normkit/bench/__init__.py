"""``normkit bench``: normkit beside memcpy and every installed peer, in one process, on the same arrays.

The contenders of a group (oneDNN, PyTorch, ONNX Runtime, JAX, NumPy, as far as they are installed) take
turns, sample by sample, so that a change of the machine's speed meets all of them. Every result is checked
against float64 before anything is timed. memcpy copies as many bytes as the operation writes; it also runs
before and after each group, and a group during which it moved by more than 10 % is marked void.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path

from normkit import _info
from normkit._options import file_to_write, integer
from normkit.bench import goals, measure, memory, plot, report
from normkit.bench.cases import DTYPES, LAYOUTS, MEMORY, PASSES, Case
from normkit.bench.operations import OPERATIONS, Shape
from normkit.bench.peers import PEERS, Peer

MINIMUM_SAMPLES = 30
SHAPES = [(1, 768), (16, 768), (4096, 128), (512, 768), (64, 4096), (4096, 4096)]
INSTEAD = "-"  # of the tables, to standard output
IMAGES = [goals.SMALL, goals.LARGE]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``normkit bench``."""
    parser.add_argument(
        "--suite",
        choices=["sweep", "goals"],
        default="sweep",
        help="goals: the README's table, every line of it; sweep: what --op to --layout say (default: sweep)",
    )
    parser.add_argument("--rows", nargs="+", metavar="N", help="only these lines of the goals, by number")
    parser.add_argument("--case", metavar="TEXT", help="only cases whose name contains it; see --list")
    _add_choices(parser, "--op", list(OPERATIONS), ["layer_norm", "rms_norm"])
    _add_choices(parser, "--passes", PASSES, PASSES[:2])
    _add_choices(parser, "--dtype", DTYPES, ["float32", "bfloat16", "float16"])
    _add_choices(parser, "--layout", LAYOUTS, LAYOUTS)
    _add_choices(parser, "--peers", list(PEERS), list(PEERS))
    shapes = " ".join("x".join(map(str, shape)) for shape in [*SHAPES, *IMAGES])
    parser.add_argument(
        "--shape",
        type=_shape,
        default=[*SHAPES, *IMAGES],
        nargs="+",
        metavar="ROWSxN",
        help=f"or NxCxHxW, as the operation wants; default: {shapes}",
    )
    parser.add_argument(
        "--threads", type=integer(1, 1024), nargs="+", metavar="N", help="default: 1 and all processors"
    )
    parser.add_argument(
        "--memory",
        choices=MEMORY,
        default="reused",
        help="reused: outputs go to existing memory; natural: every call allocates them (default: reused); "
        "the goals say themselves",
    )
    parser.add_argument(
        "--samples",
        type=integer(1),
        default=MINIMUM_SAMPLES,
        help=f"per contender; fewer than {MINIMUM_SAMPLES} are {MINIMUM_SAMPLES}",
    )
    parser.add_argument(
        "--retry", type=integer(0), default=0, help="measure a void or busy group again, so many times"
    )
    parser.add_argument("--quick", action="store_true", help="only float32 forward on 512x768")
    parser.add_argument("--list", action="store_true", help="print the names of the cases, measure nothing")
    for option, what in (("--json", "JSON object, everything measured"), ("--markdown", "Markdown table")):
        text = f"one {what}, instead of the tables; with FILE, there, beside them"
        parser.add_argument(option, nargs="?", type=file_to_write, const=INSTEAD, metavar="FILE", help=text)
    parser.add_argument(
        "--plot",
        type=file_to_write,
        metavar="FILE",
        help="also a picture: GB/s against size, memcpy as the line; the ending chooses the format",
    )


def run(options: argparse.Namespace) -> int:
    """Measures and prints; the exit code is 1 if a result of normkit was wrong or nothing was measured."""
    if options.quick:
        options.passes, options.dtype, options.shape = ["forward"], ["float32"], [(512, 768)]
    samples = max(options.samples, MINIMUM_SAMPLES)
    threads = sorted(set(options.threads or goals.default_threads()))
    chosen = _chosen(options, threads)
    if not chosen:
        return _refuse("no such case; --list prints them", 2)
    if options.list:
        print("\n".join(f"{case.goal:>2} {case}" for case in chosen))
        return 0
    available = _info.memory_bytes()
    for case in chosen:
        if available is not None and case.bytes > available:
            arrays, machine = (f"{size / 2**30:.3g} GiB" for size in (case.bytes, available))
            return _refuse(f"{case}: its arrays take {arrays}, this machine has {machine}", 2)
    try:
        if options.plot:
            plot.check(options.plot)
    except plot.MissingMatplotlib as error:
        return _refuse(str(error), 1)
    except ValueError as error:
        return _refuse(str(error), 2)

    wanted = {name for case in chosen for name in case.peers or measure.DEFAULT_PEERS}
    peers = measure.load_peers([name for name in options.peers if name in wanted])
    columns = [peer.name for peer in peers if peer.name != "normkit"]
    header = report.header(peers, samples)
    quiet = INSTEAD in (options.json, options.markdown)
    if not quiet:
        print("\n".join(header["lines"]), flush=True)
    groups: list[measure.Group] = []
    # Natural memory first: the C library cannot be told to forget again what it keeps for reused memory.
    for kind, part in itertools.groupby(sorted(chosen, key=_memory_order), key=lambda case: case.memory):
        if kind == "reused" and not memory.keep_freed_memory():
            print(
                "normkit bench: the C library cannot keep freed memory; who allocates suffers",
                file=sys.stderr,
            )
        for title, together in itertools.groupby(part, key=lambda case: _title(options.suite, case)):
            groups += _table(title, list(together), peers, options, None if quiet else columns)
    if not groups:
        return _refuse("nothing was measured", 1)
    order = {case: index for index, case in enumerate(chosen)}
    groups.sort(key=lambda group: order[group.case])
    if not quiet:
        print(report.behind(groups))
        print(report.notes())
    try:
        if options.json:
            data = {"header": header["facts"], **report.as_data(groups)}
            _deliver(json.dumps(data, indent=2), options.json)
        if options.markdown:
            _deliver(report.markdown(groups, columns, header["lines"]), options.markdown)
        if options.plot:
            plot.write(groups, options.plot)
    except (OSError, ValueError) as error:
        return _refuse(f"cannot write what was measured: {error}", 1)
    return 1 if any("normkit" in group.wrong for group in groups) else 0


def _table(
    title: str, cases: list[Case], peers: list[Peer], options: argparse.Namespace, columns: list[str] | None
) -> list[measure.Group]:
    """Measures one table's cases; prints line by line, unless there are no columns."""
    samples, groups = max(options.samples, MINIMUM_SAMPLES), []
    printed = report.Table(title, cases, columns or [])
    if columns is not None:
        print(printed.head, flush=True)
    for case in cases:
        group = _measure(case, peers, samples, options.retry)
        if group is not None:
            groups.append(group)
            if columns is not None:
                print(printed.line(group), flush=True)
    for line in printed.foot(groups) if columns is not None else []:
        print(line, flush=True)
    return groups


def _chosen(options: argparse.Namespace, threads: list[int]) -> list[Case]:
    if options.suite == "goals":
        cases = goals.goals(threads)
    else:
        cases = goals.sweep(
            options.op,
            options.passes,
            options.dtype,
            options.shape,
            options.layout,
            options.memory,
            threads,
        )
    text, rows = options.case or "", options.rows
    return [case for case in cases if text in case.name and (rows is None or case.goal in rows)]


def _memory_order(case: Case) -> tuple[bool, int]:
    """Natural before reused; then as many threads together as the suite has them."""
    return case.memory == "reused", case.threads if case.goal else 0


def _title(suite: str, case: Case) -> str:
    """What the cases of a table have in common."""
    if suite == "goals":
        return f"goals, {case.threads_text}, {case.memory} memory"
    layout = f", {case.layout}" if case.geometry.rank == 4 else ""
    return f"{case.kind}{layout}, {case.threads_text}, {case.memory} memory"


def _measure(case: Case, peers: list[Peer], samples: int, retries: int) -> measure.Group | None:
    """The steadiest of at most 1 + retries measurements; None, and a word about it, if normkit cannot."""
    best: measure.Group | None = None
    for _ in range(1 + retries):
        _progress(str(case))
        try:
            group = measure.measure(case, peers, samples)
        except MemoryError as error:
            group = f"not enough memory ({error})"
        _progress("")
        if isinstance(group, str):
            print(f"normkit bench: {case}: skipped, {group}", file=sys.stderr)
            return None
        best = group if best is None else min(best, group, key=lambda one: (one.void + one.busy, one.drift))
        if not (best.void or best.busy):
            break
    return best


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text}\033[K", end="\r", file=sys.stderr, flush=True)


def _deliver(text: str, place: str) -> None:
    if place == INSTEAD:
        print(text)
    else:
        Path(place).write_text(text + "\n")


def _refuse(reason: str, code: int) -> int:
    print(f"normkit bench: {reason}", file=sys.stderr)
    return code


def _shape(text: str) -> Shape:
    try:
        shape = tuple(int(part) for part in text.split("x"))
    except ValueError:
        shape = ()
    ranks = {operation.rank for operation in OPERATIONS.values()}
    if len(shape) not in ranks:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form ROWSxN or NxCxHxW")
    if min(shape) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: all sizes must be at least 1")
    return shape


def _add_choices(parser: argparse.ArgumentParser, option: str, names: list[str], default: list[str]) -> None:
    text = f"any of {', '.join(names)} (default: {'all' if default == names else ' '.join(default)})"
    parser.add_argument(option, nargs="+", choices=names, default=default, metavar="NAME", help=text)
