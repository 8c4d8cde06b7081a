"""The ``normkit`` command: demo, bench, info, selftest.

Exit codes: 0 all is well; 1 the command failed (a missing package, a failed check); 2 wrong usage. Every
command lives in a module of its own, whose heavy imports happen only when that command runs.
"""

from __future__ import annotations

import argparse
import os
import sys

import normkit
from normkit import _info, _selftest, bench, demo


def main(argv: list[str] | None = None) -> int:
    """Runs one command; ``argv`` without the program's name, by default the process's own."""
    parser = _parser()
    try:
        options = parser.parse_args(argv)
        return int(options.run(options))
    except SystemExit as stop:  # argparse ends this way after --help and after wrong usage
        return stop.code if isinstance(stop.code, int) else 1
    except demo.MissingExtra as error:
        print(f"normkit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nnormkit: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe went away; the interpreter's own flush at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="normkit",
        description="Normalization for CPUs: right, the same everywhere, at the speed of memory.",
    )
    parser.add_argument("--version", action="version", version=f"normkit {normkit.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module, summary in (
        ("demo", demo, "train a small network on scanned digits with and without normalization"),
        ("bench", bench, "time normkit beside memcpy and the installed peers"),
        ("info", _info, "version, instruction set, threads and build facts"),
        ("selftest", _selftest, "check accuracy and sameness on this machine"),
    ):
        command = commands.add_parser(name, help=summary, description=(module.__doc__ or "").split("\n\n")[0])
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser
