"""``normkit bench``: normkit beside memcpy and every installed peer, in one process, on the same arrays.

The contenders of a group (PyTorch, ONNX Runtime, JAX, NumPy, as far as they are installed) take turns, sample
by sample, so that a change of the machine's speed meets all of them. Every result is checked against float64
before anything is timed. memcpy moves as many bytes as the operation must read and write; it also runs before
and after each group, and a group during which it moved by more than 10 % is marked void.
"""

from __future__ import annotations

import argparse
import json
import sys

from normkit import _info
from normkit.bench import measure, report
from normkit.bench.cases import DTYPES, MEMORY, OPERATIONS, PASSES, SHAPES, Case
from normkit.bench.peers import PEERS, Peer

MINIMUM_SAMPLES = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``normkit bench``."""
    _add_choices(parser, "--op", OPERATIONS, OPERATIONS)
    _add_choices(parser, "--passes", PASSES, PASSES)
    _add_choices(parser, "--dtype", DTYPES, ["float32", "bfloat16"])
    _add_choices(parser, "--peers", list(PEERS), list(PEERS))
    shapes = " ".join(f"{rows}x{n}" for rows, n in SHAPES)
    parser.add_argument(
        "--shape", type=_shape, default=SHAPES, nargs="+", metavar="ROWSxN", help=f"default: {shapes}"
    )
    parser.add_argument("--threads", type=int, nargs="+", metavar="N", help="default: 1 and all processors")
    parser.add_argument(
        "--memory",
        choices=MEMORY,
        default="reused",
        help="reused: outputs go to existing memory; natural: every call allocates them (default: reused)",
    )
    parser.add_argument(
        "--samples", type=int, default=MINIMUM_SAMPLES, help=f"per contender, at least {MINIMUM_SAMPLES}"
    )
    parser.add_argument("--quick", action="store_true", help="only float32 forward on 512x768")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")


def run(options: argparse.Namespace) -> int:
    """Measures and prints; the exit code is 1 if a result of normkit was wrong."""
    if options.quick:
        options.passes, options.dtype, options.shape = ["forward"], ["float32"], [(512, 768)]
    samples = max(options.samples, MINIMUM_SAMPLES)
    threads = sorted(set(options.threads or (1, _info.usable_processors())))
    if min(threads) < 1:
        print("normkit bench: --threads must be at least 1", file=sys.stderr)
        return 2
    peers = measure.load_peers(options.peers)
    header = report.header(peers, samples, options.memory)
    if not options.json:
        print("\n".join(header["lines"]), flush=True)
    if options.memory == "reused":
        measure.keep_freed_memory()

    groups: list[measure.Group] = []
    for group in _cases(options, threads):
        measured = [_measure(case, peers, samples) for case in group]
        groups += measured
        if not options.json:
            print(report.table(measured, peers), flush=True)
    latencies = measure.latencies(peers, samples, options.memory)
    if options.json:
        print(json.dumps({"header": header["facts"], **report.as_data(groups, latencies)}, indent=2))
    else:
        print(report.latency_table(latencies))
        print(report.notes(options.memory))
    return 1 if any("normkit" in group.wrong for group in groups) else 0


def _cases(options: argparse.Namespace, threads: list[int]) -> list[list[Case]]:
    """One list of cases per table: same operation, pass, dtype and thread count."""
    return [
        [Case(operation, which, dtype, rows, n, count, options.memory) for rows, n in options.shape]
        for operation in options.op
        for which in options.passes
        for dtype in options.dtype
        for count in threads
    ]


def _measure(case: Case, peers: list[Peer], samples: int) -> measure.Group:
    if sys.stderr.isatty():
        print(f"\r{case}\033[K", end="\r", file=sys.stderr, flush=True)
    group = measure.measure(case, peers, samples)
    if sys.stderr.isatty():
        print("\033[K", end="\r", file=sys.stderr, flush=True)
    return group


def _shape(text: str) -> tuple[int, int]:
    try:
        rows, n = (int(part) for part in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form ROWSxN") from None
    if rows < 1 or n < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: rows and n must be at least 1")
    return rows, n


def _add_choices(parser: argparse.ArgumentParser, option: str, names: list[str], default: list[str]) -> None:
    text = f"any of {', '.join(names)} (default: {'all' if default == names else ' '.join(default)})"
    parser.add_argument(option, nargs="+", choices=names, default=default, metavar="NAME", help=text)
