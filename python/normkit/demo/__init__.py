"""``normkit demo``: what normalization does to the training of a small network on scanned digits.

The convolutional network (``network.py``) is trained without normalization and with each norm of
``training.METHODS``, in batches of three sizes, at a gentle and at a ten times higher learning rate.
``claims.py`` holds what the literature says against the numbers, ``report.py`` turns them into a table and
into the sentences below it, ``plot.py`` into a picture. Everything but the time follows from the seed.
"""

from __future__ import annotations

import argparse
import sys

from normkit._options import file_to_write, integer
from normkit.demo.training import MIN_SAMPLES


class MissingExtra(RuntimeError):
    """A package of the ``demo`` extra is not installed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``normkit demo``."""
    parser.add_argument("--seed", type=integer(0), default=0, help="fixes every result (default: 0)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=integer(1), help="passes over the training digits (default: 8)")
    length.add_argument(
        "--samples",
        metavar="N",
        type=integer(MIN_SAMPLES),
        help=f"digits that each training sees, instead of whole epochs (at least {MIN_SAMPLES})",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=file_to_write,
        default="normkit_demo.png",
        help="where the loss curves go; the ending chooses the format (default: normkit_demo.png)",
    )
    parser.add_argument("--quick", action="store_true", help="1 run of 3 epochs each instead of 3 runs of 8")
    parser.add_argument("--no-plot", action="store_true", help="only the table, no picture")


def run(options: argparse.Namespace) -> int:
    """Trains, prints the table and saves the picture; returns the exit code."""
    _require(["sklearn", "tqdm"] + ([] if options.no_plot else ["matplotlib"]))
    from normkit.demo import report, training

    digits = training.load_digits()
    samples = options.samples or (options.epochs or (3 if options.quick else 8)) * training.epoch(digits)
    settings = training.Settings(
        seed=options.seed,
        samples=samples - samples % training.BATCHES[-1],
        folds=1 if options.quick else training.FOLDS,
    )
    print(report.introduction(settings, digits), flush=True)
    results = training.train_all(settings, digits)
    held_out = report.asked(settings, digits)
    print(report.table(results, held_out))
    print(report.verdict(results, held_out))
    print(report.closing(results))
    if not options.no_plot:
        from normkit.demo import plot

        try:
            plot.save(results, options.out)
        except (OSError, ValueError) as error:
            print(f"normkit demo: cannot write the picture: {error}", file=sys.stderr)
            return 1
        print(f"Loss curves: {options.out}")
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
