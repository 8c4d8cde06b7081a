"""What the literature says about the norms, and whether the demo's numbers agree.

Every claim is one or more comparisons of two measured accuracies. Each has a margin: twice the standard error
of the difference. Nothing here is true beforehand.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from normkit.demo.training import BATCHES, Result

SMALL, *_, LARGE = BATCHES


class Cell(NamedTuple):
    """One measured accuracy: that of ``method`` at this batch size and rate, on full or dimmed digits."""

    method: str
    batch: int
    rate: str
    dim: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.batch} {self.rate}" + (" dim" if self.dim else "")


class Comparison(NamedTuple):
    """``first relation second`` beyond the margin (>), within it (=), or not below by more than it (>=)."""

    first: Cell
    relation: str
    second: Cell


class Claim(NamedTuple):
    """A sentence, where it comes from, and the comparisons that would bear it out."""

    sentence: str
    source: str
    comparisons: list[Comparison]


class Score(NamedTuple):
    """An accuracy and its standard error."""

    accuracy: float
    error: float


class Outcome(NamedTuple):
    """What became of a comparison; accuracies and margin as shares, not percent."""

    first: float
    second: float
    margin: float
    holds: bool


def _at(method: str, batch: int = LARGE, rate: str = "gentle", dim: bool = False) -> Cell:
    return Cell(method, batch, rate, dim)


CLAIMS = [
    Claim(
        "Without normalization, the tenfold rate is too high.",
        "arXiv:1502.03167",
        [Comparison(_at("none", batch), ">", _at("none", batch, "tenfold")) for batch in BATCHES],
    ),
    Claim(
        "Batch norm allows larger rates than no norm.",
        "arXiv:1502.03167",
        [
            Comparison(_at("batch", LARGE, "tenfold"), ">=", _at("batch")),
            Comparison(_at("batch", LARGE, "tenfold"), ">", _at("none", LARGE, "tenfold")),
        ],
    ),
    Claim(
        "Batch norm suffers in tiny batches, whose statistics are noisy.",
        "arXiv:1803.08494",
        [Comparison(_at("batch", LARGE), ">", _at("batch", SMALL))],
    ),
    Claim(
        "Group norm does not care about the batch size.",
        "arXiv:1803.08494",
        [Comparison(_at("group", SMALL), "=", _at("group", LARGE))],
    ),
    Claim(
        "Switchable norm does not care about it either.",
        "arXiv:1806.10779",
        [Comparison(_at("switchable", SMALL), "=", _at("switchable", LARGE))],
    ),
    Claim(
        "Instance norm discards the contrast; batch norm does not.",
        "arXiv:1607.08022",
        [
            Comparison(_at("instance", dim=True), "=", _at("instance")),
            Comparison(_at("instance", dim=True), ">", _at("batch", dim=True)),
        ],
    ),
    Claim(
        "RMS norm does as well as layer norm.",
        "arXiv:1910.07467",
        [
            Comparison(_at("RMS", LARGE, rate), ">=", _at("layer", LARGE, rate))
            for rate in ("gentle", "tenfold")
        ],
    ),
    Claim(
        "Weight norm bears larger rates than no norm.",
        "arXiv:1602.07868",
        [Comparison(_at("weight", LARGE, "tenfold"), ">", _at("none", LARGE, "tenfold"))],
    ),
    Claim(
        "Dynamic tanh does as well as layer norm, without statistics.",
        "arXiv:2503.10622",
        [Comparison(_at("DyT", batch), ">=", _at("layer", batch)) for batch in BATCHES],
    ),
]


def find(results: list[Result], cell: Cell) -> Result:
    """The result that the cell is about."""
    (result,) = (r for r in results if (r.method, r.batch, r.rate) == cell[:3])
    return result


def score(results: list[Result], cell: Cell, held_out: int) -> Score:
    """Mean accuracy of the runs, which together were asked ``held_out`` digits, each once.

    The standard error is the larger of sqrt(p (1 - p) / n) and that from the spread of the runs. p is moved
    towards 1/2 by two right and two wrong answers (Agresti and Coull), for an accuracy of 1 is no certainty.
    """
    shares = np.array([run.dim_accuracy if cell.dim else run.accuracy for run in find(results, cell).runs])
    accuracy = float(shares.mean())
    p = (accuracy * held_out + 2) / (held_out + 4)
    error = math.sqrt(p * (1 - p) / held_out)
    if len(shares) > 1:
        error = max(error, float(shares.std(ddof=1)) / math.sqrt(len(shares)))
    return Score(accuracy, error)


def check(results: list[Result], comparison: Comparison, held_out: int) -> Outcome:
    """Whether the comparison holds in these results."""
    first = score(results, comparison.first, held_out)
    second = score(results, comparison.second, held_out)
    margin = 2 * math.hypot(first.error, second.error)
    difference = first.accuracy - second.accuracy
    holds = {
        ">": difference > margin,
        ">=": difference >= -margin,
        "=": abs(difference) <= margin,
    }[comparison.relation]
    return Outcome(first.accuracy, second.accuracy, margin, holds)
