"""Turns the demo's results into text. Every sentence is derived from the numbers."""

from __future__ import annotations

import math
import textwrap

from normkit.demo import training
from normkit.demo.claims import CLAIMS, TOO_WIDE, Cell, Claim, check, find, score
from normkit.demo.network import CHANNELS, KERNEL
from normkit.demo.training import BATCHES, RATES, Digits, Result, Settings

TEXT_WIDTH = 94  # that of the table
NAME_WIDTH, CELL_WIDTH = 11, 11
GROUPS = [[Cell("", batch, rate) for batch in BATCHES] for rate in RATES]
DIM_CELL = Cell("", BATCHES[-1], "gentle", dim=True)


def introduction(settings: Settings, digits: Digits) -> str:
    """What is about to be done."""
    layers = ", ".join(
        f"{outputs} channels" + (f" with stride {stride}" if stride > 1 else "")
        for outputs, stride in CHANNELS
    )
    runs = "a third of them held out, each third once: 3 runs each"
    if settings.folds < training.FOLDS:
        runs = f"{asked(settings, digits)} of them held out, {_count(settings.folds, 'run')} each"
    gentle, tenfold = RATES.values()
    return _paragraphs(
        f"""{len(digits.labels):,} scanned digits, {runs}, seed {settings.seed}. The network: {KERNEL} x
        {KERNEL} convolutions ({layers}), each followed by a norm and ReLU, then a linear layer. Layer and
        RMS norm go over the channels of every pixel, group norm over 4 groups of channels; weight norm acts
        on the convolutions' weights.""",
        f"""SGD without momentum. All trainings see the same {settings.samples:,} digits
        ({settings.samples / training.epoch(digits):.2g} epochs) in the same order, so smaller batches mean
        more steps; the rate is in proportion to the batch size: {gentle:g} (gentle) and {tenfold:g} (tenfold)
        in batches of {BATCHES[-1]}: the gentle one suits the network without a norm, and other rates may
        give other verdicts. Then the norms go to eval mode, where batch and switchable norm use their
        running statistics, and the network reads the held-out digits.""",
    )


def asked(settings: Settings, digits: Digits) -> int:
    """How many held-out digits the runs of one cell of the table read, all together."""
    return sum(len(digits.labels[fold :: training.FOLDS]) for fold in range(settings.folds))


def table(results: list[Result], held_out: int) -> str:
    """One line per norm; a column per rate and batch size, and one for dimmed digits."""
    groups = [*GROUPS, [DIM_CELL]]
    title = [f"{rate} rate, batches of" for rate in RATES] + [f"ink x {training.DIM:g}"]
    head = [[str(cell.batch) for cell in group] for group in GROUPS] + [
        [f"{DIM_CELL.rate}, {DIM_CELL.batch}"]
    ]
    rule = "+".join(["-" * NAME_WIDTH, *("-" * (CELL_WIDTH * len(group) + 1) for group in groups)])
    lines = [_row("", [[text] for text in title], groups), _row("norm", head, groups), rule]
    best = {cell: _best(results, cell) for group in groups for cell in group}
    for method in dict.fromkeys(result.method for result in results):
        entries = [
            [_entry(results, cell._replace(method=method), best[cell]) for cell in group] for group in groups
        ]
        lines.append(_row(method, entries, groups))
    return "\n".join([*lines, rule, _notes(results, held_out)])


def verdict(results: list[Result], held_out: int) -> str:
    """What the literature says, and what these results say to it."""
    several = len(results[0].runs) > 1
    lines = [
        _paragraphs(
            f"""What the literature says, and what came out. Each comparison names norm, batch size and rate
            and has a margin, twice the standard error of the difference: ">" asks for a lead beyond the
            margin, "=" for a difference within it, ">=" for no lag beyond it; a margin above
            {100 * TOO_WIDE:g} points is too wide to tell that there is none ("open"). The standard error is
            {"the larger of " if several else ""}sqrt(p(1-p)/n) of the {held_out:,} held-out
            digits{
                " and that from the spread of the runs"
                if several
                else "; with one run each, the luck of the training is not in it"
            }."""
        )
    ]
    return "\n".join(lines + [_claim(results, claim, held_out) for claim in CLAIMS])


def closing(results: list[Result]) -> str:
    """How long it took: the one line that varies."""
    runs = [run for result in results for run in result.runs]
    seconds, norm_seconds = sum(run.seconds for run in runs), sum(run.norm_seconds for run in runs)
    return f"Training took {seconds:.0f} s, {norm_seconds / seconds:.0%} of it inside normkit."


def _claim(results: list[Result], claim: Claim, held_out: int) -> str:
    lines, answers = [], []
    for comparison in claim.comparisons:
        outcome = check(results, comparison, held_out)
        answers.append(outcome.answer)
        difference = round(100 * (outcome.first - outcome.second), 1) + 0.0  # no -0.0
        lines.append(
            f"   {outcome.answer:<5}{comparison.first!s:<23} {outcome.first:6.1%}"
            f"  {comparison.relation:<2}  {comparison.second!s:<23} {outcome.second:6.1%}"
            f"   {difference:+5.1f}, margin {100 * outcome.margin:.1f}"
        )
    return "\n".join([f"{_word(answers)}: {claim.sentence} ({claim.source})", *lines])


def _word(answers: list[str]) -> str:
    if "yes" in answers:
        return "Confirmed" if set(answers) == {"yes"} else "Confirmed in part"
    return "Undecided here" if "open" in answers else "Not confirmed here"


def _row(name: str, entries: list[list[str]], groups: list[list[Cell]]) -> str:
    """The entries of each group share its width equally."""
    line = f"{name:<{NAME_WIDTH}}"
    for texts, group in zip(entries, groups, strict=True):
        width = CELL_WIDTH * len(group) // len(texts)
        line += "| " + "".join(f"{text:<{width}}" for text in texts)
    return line.rstrip()


def _shown(results: list[Result], cell: Cell) -> float:
    """The accuracy in percent as the table rounds it."""
    return round(100 * score(results, cell, 1).accuracy, 1)


def _best(results: list[Result], cell: Cell) -> float:
    methods = dict.fromkeys(result.method for result in results)
    return max(_shown(results, cell._replace(method=method)) for method in methods)


def _entry(results: list[Result], cell: Cell, best: float) -> str:
    """For example 97.3%, 97.9%* (the best), 68.3% (1) (one run diverged), diverged (all did)."""
    runs = find(results, cell).runs
    diverged = sum(run.diverged for run in runs)
    if diverged == len(runs):
        return "diverged"
    shown = _shown(results, cell)
    return f"{shown:.1f}%" + ("*" if shown == best else "") + (f" ({diverged})" if diverged else "")


def _notes(results: list[Result], held_out: int) -> str:
    """The legend, with only what the table needs."""
    runs = len(results[0].runs)
    text = "Share of the held-out digits read rightly" + (f", mean of {runs} runs" if runs > 1 else "")
    text += f"; * best of the column. Last column: trained as gentle, {DIM_CELL.batch}, but read with"
    text += f" {training.DIM:g} times the ink."
    diverged = {sum(run.diverged for run in result.runs) for result in results}
    if runs in diverged:
        text += " Diverged: the loss became NaN or infinite."
    if diverged - {0, runs}:
        text += f" (k): k of {runs} runs diverged and count as guessing, {1 / training.CLASSES:.0%}."
    best = max(_best(results, cell) for group in GROUPS for cell in group) / 100
    noise = 2 * math.sqrt(2 * best * (1 - best) / held_out)
    text += f" Near {best:.0%}, differences up to about {100 * noise:.1f} points are noise, with"
    text += f" {held_out:,} held-out digits."
    return _paragraphs(text)


def _paragraphs(*texts: str) -> str:
    filled = [textwrap.fill(" ".join(t.split()), TEXT_WIDTH, break_on_hyphens=False) for t in texts]
    return "\n".join(filled) + "\n"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
