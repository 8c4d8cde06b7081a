"""The demo's picture: training loss over the training, one panel per batch size and rate."""

from __future__ import annotations

from typing import Any

import numpy as np

from normkit.demo.training import BATCHES, CLASSES, LOSS_POINTS, RATES, Result, rate_of

GUESSING = float(np.log(CLASSES))  # cross-entropy of equally likely digits
# Black and Paul Tol's muted colours, which the colour-blind can tell apart; dashes help where lines meet.
STYLES = [
    ("#000000", (0, (1, 1))),
    ("#CC6677", "-"),
    ("#332288", "-"),
    ("#DDCC77", "-"),
    ("#117733", "-"),
    ("#88CCEE", (0, (4, 1.5))),
    ("#882255", (0, (4, 1.5))),
    ("#44AA99", (0, (4, 1.5))),
    ("#AA4499", (0, (6, 1.5, 1, 1.5))),
]


def save(results: list[Result], path: str) -> None:
    """Draws the medians over the runs and writes the file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 10), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(BATCHES), len(RATES), sharex=True, sharey=True, squeeze=False)
    for row, batch in zip(panels, BATCHES, strict=True):
        for panel, rate in zip(row, RATES, strict=True):
            _draw(panel, [result for result in results if (result.batch, result.rate) == (batch, rate)])
            panel.set_title(f"batches of {batch}, {rate} rate ({rate_of(rate, batch):.4g})", fontsize=11)
        row[0].set_ylabel("training loss")
    for panel in panels[-1]:
        panel.set_xlabel("share of the training (%)")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", title="norm", frameon=False, handlelength=3)
    runs = len(results[0].runs)
    figure.suptitle("Training on scanned digits" + (f", medians of {runs} runs" if runs > 1 else ""))
    figure.savefig(path, dpi=130)


def _draw(panel: Any, results: list[Result]) -> None:
    share = (np.arange(LOSS_POINTS) + 0.5) * 100 / LOSS_POINTS
    for result, (color, dashes) in zip(results, STYLES, strict=True):
        median = np.median([run.losses for run in result.runs], axis=0)
        finite = np.isfinite(median)
        panel.plot(share[finite], median[finite], ls=dashes, color=color, lw=2, label=result.method)
        if not finite.all():
            kept = int(finite.sum())
            end = (share[kept - 1], median[kept - 1]) if kept else (0.0, GUESSING)
            panel.plot(*end, "X", color=color, ms=11, mec="white", zorder=3, clip_on=False)
            panel.annotate(f"{result.method}: diverged", end, (9, 5), textcoords="offset points", color=color)
    panel.axhline(GUESSING, color="0.6", lw=1, ls=(0, (1, 3)), label="guessing")
    panel.set_yscale("log")
    panel.set_xlim(0, 100)
    panel.set_ylim(1e-3, 2.5 * GUESSING)
    panel.grid(alpha=0.3)
