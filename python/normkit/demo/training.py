"""Trains the demo's network once for every method, learning rate and repeat.

The gentle rate suits the network without normalization, which trains reliably up to about four times that
rate. All methods of one repeat share the split of the digits, the initial weights and the order of the
batches.
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
from normkit.demo.network import Floats, Labels, MakeNorm, Network, cross_entropy

HIDDEN_LAYERS = 7
WIDTH = 64
BATCH = 32
TRAINING_SHARE = 0.75
RATES = {"gentle": 0.05, "tenfold": 0.5}
LOSS_POINTS = 40  # evaluations of the training loss after the one before the first step; a multiple of 4


class Method(NamedTuple):
    """One line of the table: a name and what makes the norm of a layer (None: no norm)."""

    name: str
    make_norm: MakeNorm


METHODS = [
    Method("no norm", lambda width: None),
    Method("LayerNorm", lambda width: normkit.nn.LayerNorm(width)),
    Method("RMSNorm", lambda width: normkit.nn.RMSNorm(width)),
]


class Settings(NamedTuple):
    """What a user chooses."""

    seed: int
    epochs: int
    repeats: int


class Digits(NamedTuple):
    """Images as rows of float32 with mean 0 and standard deviation 1 over the whole set, and their labels."""

    images: Floats
    labels: Labels


class Run(NamedTuple):
    """One training run: losses on the training digits, LOSS_POINTS + 1 of them (inf once it diverged)."""

    losses: npt.NDArray[np.float64]
    accuracy: float
    seconds: float
    norm_seconds: float


class Result(NamedTuple):
    """All repeats of one method at one rate."""

    method: str
    rate_name: str
    rate: float
    runs: list[Run]

    @property
    def losses(self) -> npt.NDArray[np.float64]:
        """Shape (repeats, LOSS_POINTS + 1)."""
        return np.stack([run.losses for run in self.runs])

    @property
    def accuracies(self) -> npt.NDArray[np.float64]:
        """Share of held-out digits recognized, one value per repeat."""
        return np.array([run.accuracy for run in self.runs])

    @property
    def norm_share(self) -> float:
        """Share of the training time spent inside normkit."""
        return sum(run.norm_seconds for run in self.runs) / sum(run.seconds for run in self.runs)


def load_digits() -> Digits:
    """scikit-learn's 1,797 scanned digits of 8 x 8 pixels."""
    from sklearn.datasets import load_digits as load

    data = load()
    images = data.data.astype(np.float32)
    return Digits((images - images.mean()) / images.std(), data.target)


def split(digits: Digits, rng: np.random.Generator) -> tuple[Digits, Digits]:
    """Training and held-out digits."""
    order = rng.permutation(len(digits.labels))
    count = int(TRAINING_SHARE * len(order))
    training, held_out = order[:count], order[count:]
    return (
        Digits(digits.images[training], digits.labels[training]),
        Digits(digits.images[held_out], digits.labels[held_out]),
    )


def train_all(settings: Settings, digits: Digits) -> list[Result]:
    """Every method at every rate, with a progress bar on stderr if that is a terminal."""
    from tqdm import tqdm

    cases = [(name, rate, method) for name, rate in RATES.items() for method in METHODS]
    results = []
    total = len(cases) * settings.repeats
    with one_thread(), tqdm(total=total, unit="run", disable=None, leave=False) as bar:
        for rate_name, rate, method in cases:
            bar.set_description(f"{method.name}, rate {rate:g}")
            runs = []
            for repeat in range(settings.repeats):
                runs.append(train(method, rate, settings, repeat, digits))
                bar.update()
            results.append(Result(method.name, rate_name, rate, runs))
    return results


def train(method: Method, rate: float, settings: Settings, repeat: int, digits: Digits) -> Run:
    """One run from the starting point that (seed, repeat) fixes."""
    rng = np.random.default_rng([settings.seed, repeat])
    training, held_out = split(digits, rng)
    network = Network(digits.images.shape[1], WIDTH, HIDDEN_LAYERS, 10, method.make_norm, rng)
    steps_per_epoch = len(training.labels) // BATCH
    steps = settings.epochs * steps_per_epoch
    losses = np.full(LOSS_POINTS + 1, np.inf)
    losses[0] = cross_entropy(network.forward(training.images), training.labels)
    seconds = norm_seconds = 0.0
    step = 0
    with np.errstate(all="ignore"):  # a run that diverges overflows; that is its result
        for point in range(1, LOSS_POINTS + 1):
            begin, norm_begin = time.perf_counter(), network.norm_seconds
            while step < point * steps // LOSS_POINTS:
                if step % steps_per_epoch == 0:
                    order = rng.permutation(len(training.labels))
                batch = order[step % steps_per_epoch * BATCH :][:BATCH]
                network.train_step(training.images[batch], training.labels[batch], rate)
                step += 1
            seconds += time.perf_counter() - begin
            norm_seconds += network.norm_seconds - norm_begin
            loss = cross_entropy(network.forward(training.images), training.labels)
            if not math.isfinite(loss):
                break
            losses[point] = loss
        recognized = network.forward(held_out.images).argmax(axis=1) == held_out.labels
    return Run(losses, float(recognized.mean()), seconds, norm_seconds)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """NumPy's matrix products and normkit on one thread: arrays this small gain nothing from more.

    The products then also give the same digits on any number of cores; normkit does so anyway.
    """
    limits = importlib.import_module("threadpoolctl").threadpool_limits  # scikit-learn depends on it
    with limits(1, user_api="blas"), normkit.num_threads(1):
        yield
