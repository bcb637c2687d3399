"""The study's figures as a table and a plot, beside the paper's."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from instructvla_training.evaluation import bootstrap
from instructvla_training.evaluation.bootstrap import Interval
from instructvla_training.evaluation.tables import when_and_where

from .plan import CELLS, COMPARISONS, NOT_AT_HAND, SHIPPED, VARIANTS, Cell, Comparison
from .run import Setting, measured, rounds

TABLE_FILE, PLOT_FILE, FIGURES_FILE = "study.md", "study.png", "study.json"

NAMED = "named object first"
"""Whether the object that the gripper came down to first is the one that is meant: language apart from skill."""


@dataclass(frozen=True)
class Measured:
    """Of each cell by name: what came of its trials, in how many it went well; and of each comparison by title."""

    tried: dict[str, list[np.ndarray]]
    shares: dict[str, Interval]
    compared: dict[str, Interval]


def write(setting: Setting, folder: Path) -> list[str]:
    """Writes table, plot and figures of what was measured so far into ``folder`` -> the table's lines."""
    cells = [cell for cell in CELLS if all(measured(setting, cell, seed) for seed in setting.seeds(cell))]
    won = _measured({cell.name: rounds(setting, cell) for cell in cells})
    played = [cell for cell in cells if cell.kind != "questions"]
    named = _measured({cell.name: rounds(setting, cell, grounded=True) for cell in played})
    about = [
        json.loads(setting.outcome(cell, 0).read_text(encoding="utf-8"))["about"] | {"cell": cell.name}
        for cell in cells
    ]
    lines = _lines(setting, cells, won, named, about)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TABLE_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    figures = {
        "budget": asdict(setting.budget), "measured": about, "paper": {cell.name: cell.paper for cell in cells},
        "success": _figures(won), "named_object_first": _figures(named),
    }  # fmt: skip
    (folder / FIGURES_FILE).write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if cells:
        _plot(cells, won.shares, named.shares, folder / PLOT_FILE)
    return lines


def _measured(tried: dict[str, list[np.ndarray]]) -> Measured:
    compared = {
        comparison.title: getattr(bootstrap, comparison.by)(tried[comparison.one], tried[comparison.other])
        for comparison in COMPARISONS
        if comparison.one in tried and comparison.other in tried
    }
    return Measured(tried, {name: bootstrap.share(found) for name, found in tried.items()}, compared)


def _figures(found: Measured) -> dict[str, Any]:
    return {
        "cells": {name: asdict(share) for name, share in found.shares.items()},
        "comparisons": {title: _known(asdict(figure)) for title, figure in found.compared.items()},
        "trials": {name: [_digits(one) for one in tried] for name, tried in found.tried.items()},
    }


def _digits(trials: np.ndarray) -> str:
    return "".join("01"[int(went_well)] for went_well in trials)


def _known(figures: Mapping[str, float]) -> dict[str, float | None]:
    """For JSON, which knows neither NaN nor infinity."""
    return {name: number if math.isfinite(number) else None for name, number in figures.items()}


def _lines(
    setting: Setting, cells: list[Cell], won: Measured, named: Measured, about: list[dict[str, Any]]
) -> list[str]:
    budget = setting.budget
    titles = {SHIPPED: "Trained in full"}
    titles |= {variant.name: variant.title[0].upper() + variant.title[1:] for variant in VARIANTS}
    lines = []
    for model, title in titles.items():
        own = [cell for cell in cells if cell.model == model]
        if own:
            head = f"| what | measured | 95 % interval | {NAMED} | 95 % interval | trials | the paper |"
            lines += ["", f"**{title}**", "", head, "|---|---|---|---|---|---|---|"]
            lines += [_row(setting, cell, won, named) for cell in own]
    if won.compared:
        head = f"| what | measured | 95 % interval | {NAMED} | 95 % interval | the paper |"
        lines += ["", "**Compared, trial by trial**", "", head, "|---|---|---|---|---|---|"]
        lines += [_comparison(row, won, named) for row in COMPARISONS if row.title in won.compared]
    spread = "one training seed each" if budget.training_seeds == 1 else f"{budget.training_seeds} training seeds each"
    lines += [
        "", f"Measured: success, and of questions the right answers. {NAMED.capitalize()}: the object that the gripper "
        "came down to first is the one that is meant, which tells language apart from skill. The paper: its figures of "
        f"its own model and benchmark; {NOT_AT_HAND} where we had none at hand, as for its ablations.",
        "", f"Ablations: {budget.expert_steps} steps of stage 1 and {budget.generalist_steps} of stage 2, {spread}. "
        f"Intervals: {bootstrap.METHOD}",
        "", when_and_where(about) if about else "Nothing is measured yet.",
    ]  # fmt: skip
    return lines[1:]


def _row(setting: Setting, cell: Cell, won: Measured, named: Measured) -> str:
    trials = setting.count(cell) * len(setting.seeds(cell))
    figures = " | ".join(_share(found.shares.get(cell.name)) for found in (won, named))
    return f"| {cell.title} | {figures} | {trials} | {cell.paper} |"


def _share(found: Interval | None) -> str:
    return f"{100 * found.value:.1f} % | {100 * found.low:.1f}..{100 * found.high:.1f} %" if found else "- | -"


def _comparison(row: Comparison, won: Measured, named: Measured) -> str:
    figures = " | ".join(_compared(row.by, found.compared.get(row.title)) for found in (won, named))
    return f"| {row.title} | {figures} | {row.paper} |"


def _compared(by: str, found: Interval | None) -> str:
    if found is None or not math.isfinite(found.value):
        return "- | -"
    scale, form, unit = (1, ".2f", "") if by == "ratio" else (100, "+.1f", " points")
    value, low, high = (f"{scale * number:{form}}" for number in (found.value, found.low, found.high))
    limits = f"{low}..{high}" if math.isfinite(found.low) else "too few successes or failures to tell"
    return f"{value}{unit} | {limits}"


def _plot(cells: list[Cell], won: Mapping[str, Interval], named: Mapping[str, Interval], output: Path) -> None:
    """Every cell's share with its interval, the models in different colours; hollow: the named object first."""
    figure, axis = plt.subplots(figsize=(9, 1.2 + 0.32 * len(cells)), constrained_layout=True)
    models = list(dict.fromkeys(cell.model for cell in cells))
    for row, cell in enumerate(reversed(cells)):
        found = won[cell.name]
        colour = f"C{models.index(cell.model)}"
        axis.plot([100 * found.low, 100 * found.high], [row, row], color=colour, linewidth=2)
        axis.plot(100 * found.value, row, "o", color=colour)
        if cell.name in named:
            axis.plot(100 * named[cell.name].value, row, "o", color=colour, fillstyle="none")
    names = [f"{cell.model}: {cell.title}" if cell.model != SHIPPED else cell.title for cell in reversed(cells)]
    axis.set_yticks(range(len(cells)), names, fontsize=8)
    axis.set_xlim(0, 100)
    axis.set_xlabel(f"% of trials: success with 95 % interval (filled), {NAMED} (hollow)")
    axis.grid(axis="x", alpha=0.3)
    figure.savefig(output, dpi=100)
    plt.close(figure)
