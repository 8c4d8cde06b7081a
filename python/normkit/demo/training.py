"""Trains the demo's network once for every norm, batch size, learning rate and fold.

What is held the same: all trainings of one fold share the initial weights and see the same digits in the same
order, in batches of different size, so that small batches mean more steps. The rate is proportional to the
batch size (the linear scaling rule, arXiv:1706.02677): a digit moves the weights about as far in any batch.
The gentle rate suits the network without normalization, which trains reliably up to about four times that
rate in batches of 32.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

import normkit
from normkit.demo.network import Floats, Labels, Method, Network

BATCHES = [2, 8, 32]
RATES = {"gentle": 0.05, "tenfold": 0.5}  # in batches of the last size
FOLDS = 3  # a third of the digits is held out
LOSS_POINTS = 24  # windows of the training whose mean losses make a curve
MIN_SAMPLES = LOSS_POINTS * BATCHES[-1]  # at least a step for each
CLASSES = 10
DIM = np.float32(0.25)  # the ink left on the dimmed digits

METHODS = [
    Method("none"),
    Method("batch", norm=lambda channels: normkit.nn.BatchNorm2d(channels)),
    Method("layer", norm=lambda channels: normkit.nn.LayerNorm(channels, axis=1)),
    Method("instance", norm=lambda channels: normkit.nn.InstanceNorm2d(channels, affine=True)),
    Method("group", norm=lambda channels: normkit.nn.GroupNorm(4, channels)),
    Method("RMS", norm=lambda channels: normkit.nn.RMSNorm(channels, axis=1)),
    Method("weight", weight_norm=lambda weight: normkit.nn.WeightNorm(weight, dim=0)),
    Method("DyT", norm=lambda channels: normkit.nn.DynamicTanh(channels, axis=1)),
    Method("switchable", norm=lambda channels: normkit.nn.SwitchableNorm(channels)),
]


class Settings(NamedTuple):
    """What a user chooses; each training sees so many digits, repeated ones counted again."""

    seed: int
    samples: int
    folds: int


class Digits(NamedTuple):
    """Images (N, 1, 8, 8) of float32, zero where there is no ink, and their labels."""

    images: Floats
    labels: Labels


class Run(NamedTuple):
    """One training: LOSS_POINTS means of the loss (inf once it diverged) and shares of held-out digits."""

    losses: npt.NDArray[np.float64]
    accuracy: float
    dim_accuracy: float
    seconds: float
    norm_seconds: float

    @property
    def diverged(self) -> bool:
        """The loss or an output became NaN or infinite; the accuracies are those of guessing."""
        return not math.isfinite(self.losses[-1])


class Result(NamedTuple):
    """The folds of one norm, batch size and rate."""

    method: str
    batch: int
    rate: str
    runs: list[Run]


def load_digits() -> Digits:
    """scikit-learn's 1,797 scanned digits of 8 x 8 pixels."""
    from sklearn.datasets import load_digits as load

    data = load()
    images = data.data.astype(np.float32).reshape(-1, 1, 8, 8)
    return Digits(images / images.std(), data.target)


def epoch(digits: Digits) -> int:
    """How many digits a training sees in one pass, in the one fold in which they are the fewest."""
    return len(digits.labels) - -(-len(digits.labels) // FOLDS)


def rate_of(name: str, batch: int) -> float:
    """The learning rate by the linear scaling rule."""
    return RATES[name] * batch / BATCHES[-1]


def train_all(settings: Settings, digits: Digits) -> list[Result]:
    """Every norm at every rate and batch size, with a progress bar on stderr if that is a terminal."""
    from tqdm import tqdm

    cases = [(rate, batch, method) for rate in RATES for batch in BATCHES for method in METHODS]
    results = []
    total = len(cases) * settings.folds
    with one_thread(), tqdm(total=total, unit="run", disable=None, leave=False) as bar:
        for rate, batch, method in cases:
            bar.set_description(f"{method.name}, batches of {batch}, {rate} rate")
            runs = []
            for fold in range(settings.folds):
                runs.append(train(method, batch, rate, settings, fold, digits))
                bar.update()
            results.append(Result(method.name, batch, rate, runs))
    return results


def train(method: Method, batch: int, rate: str, settings: Settings, fold: int, digits: Digits) -> Run:
    """One training from the starting point that (seed, fold) fixes."""
    shuffled = np.random.default_rng(settings.seed).permutation(len(digits.labels))
    held_out = shuffled[fold::FOLDS]
    training = np.delete(shuffled, slice(fold, None, FOLDS))
    rng = np.random.default_rng([settings.seed, fold])
    network = Network(digits.images.shape[-1], CLASSES, method, rng)
    passes = -(-settings.samples // len(training))
    order = np.concatenate([rng.permutation(training) for _ in range(passes)])
    steps = settings.samples // BATCHES[-1] * (BATCHES[-1] // batch)

    losses = np.full(LOSS_POINTS, np.inf)
    begin = time.perf_counter()
    with np.errstate(all="ignore"):  # a run that diverges overflows; that is its result
        for point in range(LOSS_POINTS):
            window = range(point * steps // LOSS_POINTS, (point + 1) * steps // LOSS_POINTS)
            loss = 0.0
            for step in window:
                which = order[step * batch : (step + 1) * batch]
                loss += network.train_step(digits.images[which], digits.labels[which], rate_of(rate, batch))
                if not math.isfinite(loss):
                    break
            if not math.isfinite(loss):
                break
            losses[point] = loss / len(window)
        seconds, norm_seconds = time.perf_counter() - begin, network.norm_seconds
        images, labels = digits.images[held_out], digits.labels[held_out]
        bright, dim = network.predict(images), network.predict(DIM * images)
    if not (np.isfinite(losses[-1]) and np.isfinite(bright).all() and np.isfinite(dim).all()):
        losses[-1] = np.inf
        return Run(losses, 1 / CLASSES, 1 / CLASSES, seconds, norm_seconds)
    accuracy, dim_accuracy = (float((logits.argmax(axis=1) == labels).mean()) for logits in (bright, dim))
    return Run(losses, accuracy, dim_accuracy, seconds, norm_seconds)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """NumPy's matrix products and normkit on one thread: arrays this small gain nothing from more.

    The products then also give the same digits on any number of cores; normkit does so anyway.
    """
    limits = importlib.import_module("threadpoolctl").threadpool_limits  # scikit-learn depends on it
    with limits(1, user_api="blas"), normkit.num_threads(1):
        yield
