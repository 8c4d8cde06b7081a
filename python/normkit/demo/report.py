"""Turns the demo's results into text. Every sentence is derived from the numbers."""

from __future__ import annotations

import numpy as np

from normkit.demo import training
from normkit.demo.training import LOSS_POINTS, Digits, Result, Settings

RULE = "-" * 93
TRAINED = 0.9  # a run has trained if it ends with at least this share of the held-out digits right


def introduction(settings: Settings, digits: Digits) -> str:
    """What is about to be done."""
    count = len(digits.labels)
    held_out = count - int(training.TRAINING_SHARE * count)
    runs = "1 run" if settings.repeats == 1 else f"{settings.repeats} runs"
    return (
        f"{count} scanned digits, {held_out} of them held out; {training.HIDDEN_LAYERS} hidden layers of "
        f"{training.WIDTH} units (linear, norm, ReLU);\nSGD without momentum, batches of {training.BATCH}, "
        f"{_count(settings.epochs, 'epoch')}; {runs} each, seed {settings.seed}.\n"
    )


def table(results: list[Result]) -> str:
    """One line per method and rate: medians over the repeats, and the range of the accuracy."""
    several = len(results[0].runs) > 1
    quarters = "".join(f"{quarter:>10}" for quarter in ("1/4", "2/4", "3/4", "end"))
    median = "median (range)" if several else ""
    lines = [
        f"{'':<17}{'held-out accuracy':<24}{'training loss at':>24}{'':>16}{'time in':>12}",
        f"{'rate':<6}{'norm':<11}{median:<24}{quarters}{'normkit*':>12}",
    ]
    for previous, result in zip([None, *results], results, strict=False):
        if previous is None or previous.rate != result.rate:
            lines.append(RULE)
        lines.append(_line(result))
    lines.append(RULE)
    lines.append("Losses are medians. * Measured, so it varies; every other figure follows from the seed.")
    return "\n".join(line.rstrip() for line in lines)


def verdict(results: list[Result]) -> str:
    """Which methods trained at which rate, and how the losses compare."""
    sentences = [f"A run has trained if it ends with at least {TRAINED:.0%} of the held-out digits right."]
    for rate in dict.fromkeys(result.rate for result in results):
        at_rate = [result for result in results if result.rate == rate]
        sentences.append(f"At rate {rate:g}{_times_gentle(rate)}, {_outcome(at_rate)}.{_best_loss(at_rate)}")
    return "\n".join(sentences)


def _line(result: Result) -> str:
    accuracies = result.accuracies
    accuracy = f"{np.median(accuracies):6.1%}"
    if len(accuracies) > 1:
        accuracy += f" ({accuracies.min():.1%} - {accuracies.max():.1%})"
    quarters = np.median(result.losses, axis=0)[LOSS_POINTS // 4 :: LOSS_POINTS // 4]
    losses = "".join(f"{_loss(loss):>10}" for loss in quarters)
    share = f"{result.norm_share:.0%}" if result.norm_share > 0 else "-"
    return f"{result.rate:<6g}{result.method:<11}{accuracy:<24}{losses}{share:>12}"


def _loss(loss: float) -> str:
    return f"{loss:.2g}" if np.isfinite(loss) else "diverged"


def _times_gentle(rate: float) -> str:
    times = rate / training.RATES["gentle"]
    return " (gentle)" if times == 1 else f" ({times:g} times as high)"


def _outcome(results: list[Result]) -> str:
    """For example: trained in all 5 runs: LayerNorm, RMSNorm; trained in none: no norm."""
    groups: dict[int, list[str]] = {}
    for result in results:
        groups.setdefault(int((result.accuracies >= TRAINED).sum()), []).append(result.method)
    runs = len(results[0].runs)
    label = {trained: f"trained in {trained} of {runs} runs" for trained in groups}
    label |= {0: "trained in none", runs: f"trained in all {runs} runs"}
    if runs == 1:
        label = {0: "not trained", 1: "trained"}
    parts = [f"{label[trained]}: {', '.join(groups[trained])}" for trained in sorted(groups, reverse=True)]
    return "; ".join(parts)


def _best_loss(results: list[Result]) -> str:
    """The lowest median of the final losses, if there is one."""
    finals = {result.method: float(np.median(result.losses[:, -1])) for result in results}
    best = min(finals, key=lambda method: finals[method])
    return f"\n  Lowest final loss: {best}, {_loss(finals[best])}." if np.isfinite(finals[best]) else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
