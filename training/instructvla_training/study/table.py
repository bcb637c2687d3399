"""The study's figures as a table and a plot, beside the paper's."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from instructvla_training.evaluation import bootstrap
from instructvla_training.evaluation.bootstrap import Interval

from .plan import CELLS, COMPARISONS, SHIPPED, VARIANTS, Cell, Comparison
from .run import Setting, measured, rounds

TABLE_FILE, PLOT_FILE, FIGURES_FILE = "study.md", "study.png", "study.json"


def write(setting: Setting, folder: Path) -> list[str]:
    """Writes table, plot and figures of what was measured so far into ``folder`` -> the table's lines."""
    cells = [cell for cell in CELLS if all(measured(setting, cell, seed) for seed in setting.seeds(cell))]
    tried = {cell.name: rounds(setting, cell) for cell in cells}
    shares = {name: bootstrap.share(found) for name, found in tried.items()}
    compared = {
        comparison.title: getattr(bootstrap, comparison.by)(tried[comparison.one], tried[comparison.other])
        for comparison in COMPARISONS
        if comparison.one in tried and comparison.other in tried
    }
    about = [
        json.loads(setting.outcome(cell, 0).read_text(encoding="utf-8"))["about"] | {"cell": cell.name}
        for cell in cells
    ]
    lines = _lines(setting, cells, shares, compared, about)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TABLE_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    figures = {
        "budget": asdict(setting.budget), "measured": about,
        "cells": {cell.name: asdict(shares[cell.name]) | {"paper": cell.paper} for cell in cells},
        "comparisons": {title: _known(asdict(found)) for title, found in compared.items()},
        "trials": {name: ["".join("01"[int(won)] for won in one) for one in found] for name, found in tried.items()},
    }  # fmt: skip
    (folder / FIGURES_FILE).write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if cells:
        _plot(cells, shares, folder / PLOT_FILE)
    return lines


def _known(figures: Mapping[str, float]) -> dict[str, float | None]:
    """For JSON, which knows neither NaN nor infinity."""
    return {name: number if math.isfinite(number) else None for name, number in figures.items()}


def _lines(
    setting: Setting, cells: list[Cell], shares: Mapping[str, Interval], compared: Mapping[str, Interval],
    about: list[dict[str, Any]],
) -> list[str]:  # fmt: skip
    budget = setting.budget
    titles = {SHIPPED: "Trained in full"}
    titles |= {variant.name: variant.title[0].upper() + variant.title[1:] for variant in VARIANTS}
    lines = []
    for model, title in titles.items():
        own = [cell for cell in cells if cell.model == model]
        if own:
            lines += ["", f"**{title}**", "", "| what | measured | 95 % interval | trials | the paper |"]
            lines += ["|---|---|---|---|---|", *(_row(setting, cell, shares[cell.name]) for cell in own)]
    if compared:
        lines += ["", "**Compared, trial by trial**", "", "| what | measured | 95 % interval | the paper |"]
        lines += ["|---|---|---|---|"]
        lines += [_compared(row, compared[row.title]) for row in COMPARISONS if row.title in compared]
    dates = sorted({row["date"] for row in about})
    machines = sorted({row["machine"] for row in about})
    spread = "one training seed each" if budget.training_seeds == 1 else f"{budget.training_seeds} training seeds each"
    lines += [
        "", f"Ablations: {budget.expert_steps} steps of stage 1 and {budget.generalist_steps} of stage 2, {spread}. "
        f"Intervals: {bootstrap.METHOD}",
        "", f"Measured {' and '.join(dates) or 'nothing yet'} on {'; '.join(machines) or '-'}.",
    ]  # fmt: skip
    return lines[1:]


def _row(setting: Setting, cell: Cell, found: Interval) -> str:
    trials = setting.count(cell) * len(setting.seeds(cell))
    limits = f"{100 * found.low:.1f}..{100 * found.high:.1f} %"
    return f"| {cell.title} | {100 * found.value:.1f} % | {limits} | {trials} | {cell.paper} |"


def _compared(row: Comparison, found: Interval) -> str:
    scale, form, unit = (1, ".2f", "") if row.by == "ratio" else (100, "+.1f", " points")
    value, low, high = (f"{scale * number:{form}}" for number in (found.value, found.low, found.high))
    limits = f"{low}..{high}" if math.isfinite(found.low) else "too few successes or failures to tell"
    return f"| {row.title} | {value + unit if math.isfinite(found.value) else '-'} | {limits} | {row.paper} |"


def _plot(cells: list[Cell], shares: Mapping[str, Interval], output: Path) -> None:
    """Every cell's share with its interval, the models in different colours."""
    figure, axis = plt.subplots(figsize=(9, 1.2 + 0.32 * len(cells)), constrained_layout=True)
    models = list(dict.fromkeys(cell.model for cell in cells))
    for row, cell in enumerate(reversed(cells)):
        found = shares[cell.name]
        colour = f"C{models.index(cell.model)}"
        axis.plot([100 * found.low, 100 * found.high], [row, row], color=colour, linewidth=2)
        axis.plot(100 * found.value, row, "o", color=colour)
    names = [f"{cell.model}: {cell.title}" if cell.model != SHIPPED else cell.title for cell in reversed(cells)]
    axis.set_yticks(range(len(cells)), names, fontsize=8)
    axis.set_xlim(0, 100)
    axis.set_xlabel("% of trials, with 95 % interval")
    axis.grid(axis="x", alpha=0.3)
    figure.savefig(output, dpi=100)
    plt.close(figure)
