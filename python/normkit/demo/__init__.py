"""``normkit demo``: what normalization does to the training of a small network on scanned digits.

The network (``network.py``) is trained without normalization and with each norm of ``training.METHODS``, at a
gentle and at a ten times higher learning rate, several times from different starting points. ``report.py``
turns the numbers into a table and into the sentences below it, ``plot.py`` into a picture. Everything but the
time follows from the seed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable


class MissingExtra(RuntimeError):
    """A package of the ``demo`` extra is not installed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``normkit demo``."""
    parser.add_argument("--seed", type=_at_least(0), default=0, help="fixes every result (default: 0)")
    parser.add_argument("--epochs", type=_at_least(1), help="passes over the training digits (default: 20)")
    parser.add_argument(
        "--out",
        metavar="FILE",
        default="normkit_demo.png",
        help="where the loss curves go; the ending chooses the format (default: normkit_demo.png)",
    )
    parser.add_argument("--quick", action="store_true", help="1 run of 8 epochs each instead of 5 runs of 20")
    parser.add_argument("--no-plot", action="store_true", help="only the table, no picture")


def run(options: argparse.Namespace) -> int:
    """Trains, prints the table and saves the picture; returns the exit code."""
    _require(["sklearn", "tqdm"] + ([] if options.no_plot else ["matplotlib"]))
    from normkit.demo import report, training

    settings = training.Settings(
        seed=options.seed,
        epochs=options.epochs or (8 if options.quick else 20),
        repeats=1 if options.quick else 5,
    )
    digits = training.load_digits()
    print(report.introduction(settings, digits), flush=True)
    results = training.train_all(settings, digits)
    print(report.table(results))
    print()
    print(report.verdict(results))
    if not options.no_plot:
        from normkit.demo import plot

        try:
            plot.save(results, options.out)
        except (OSError, ValueError) as error:
            print(f"normkit demo: cannot write the picture: {error}", file=sys.stderr)
            return 1
        print(f"\nLoss curves: {options.out}")
    return 0


def _require(modules: list[str]) -> None:
    """Raises MissingExtra, naming the missing packages and the command that installs them."""
    import importlib.util

    package = {"sklearn": "scikit-learn"}
    missing = [package.get(name, name) for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f'the demo needs {", ".join(missing)}, which is not installed: pip install "normkit[demo]"'
        )


def _at_least(minimum: int) -> Callable[[str], int]:
    """An argparse type: an integer not below ``minimum``."""

    def integer(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is below {minimum}")
        return value

    return integer
