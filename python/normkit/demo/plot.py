"""The demo's picture: training loss over training time, one panel per learning rate."""

from __future__ import annotations

from typing import Any

import numpy as np

from normkit.demo.training import LOSS_POINTS, Result

GUESSING = float(np.log(10))  # cross-entropy of ten equally likely digits
STYLES = ["-", "--", "-.", ":"]


def save(results: list[Result], path: str) -> None:
    """Draws medians over the repeats with a band from the lowest to the highest, and writes the file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rates = list(dict.fromkeys(result.rate for result in results))
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(rates), sharey=True, squeeze=False)[0]
    for panel, rate in zip(panels, rates, strict=True):
        _draw(panel, [result for result in results if result.rate == rate])
        panel.set_title(f"learning rate {rate:g}")
        panel.set_xlabel("share of the training (%)")
    panels[0].set_ylabel("training loss: median and range of the runs")
    panels[0].set_ylim(_lower_limit(results), 4 * GUESSING)
    figure.savefig(path, dpi=150)


def _draw(panel: Any, results: list[Result]) -> None:
    share = np.linspace(0, 100, LOSS_POINTS + 1)
    for index, result in enumerate(results):
        losses = result.losses
        median, color = np.median(losses, axis=0), f"C{index}"
        finite = np.isfinite(median)
        diverged = int((~np.isfinite(losses[:, -1])).sum())
        label = f"{result.method}: {np.median(result.accuracies):.1%} right"
        label += f", {diverged} of {len(losses)} diverged" if diverged else ""
        panel.plot(share[finite], median[finite], STYLES[index % len(STYLES)], color=color, lw=2, label=label)
        if len(losses) > 1:
            high = np.where(np.isfinite(losses), losses, 1e9).max(axis=0)
            panel.fill_between(share, losses.min(axis=0), high, where=finite, color=color, alpha=0.15, lw=0)
        if not finite.all():
            last = np.flatnonzero(finite)[-1]
            end = (share[last], median[last])
            panel.plot(*end, "X", color=color, ms=10, zorder=3, clip_on=False)
            panel.annotate("diverged", end, (8, 4), textcoords="offset points", color=color)
    panel.axhline(GUESSING, color="0.5", lw=1, ls=(0, (1, 2)), label="guessing")
    panel.set_yscale("log")
    panel.set_xlim(0, 100)
    panel.grid(alpha=0.3)
    panel.legend(title="held-out digits", loc="best", fontsize=9)


def _lower_limit(results: list[Result]) -> float:
    return 0.7 * min(float(result.losses.min()) for result in results)
