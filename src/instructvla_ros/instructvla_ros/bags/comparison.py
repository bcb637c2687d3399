"""Two checkpoints over the same bags, and one report against an older one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from instructvla_ros.bags.score import METRICS, ChunkScores

BLOCK = 10
"""Chunks that follow each other see almost the same; they are drawn together (moving blocks)."""
MIN_CHUNKS = 5 * BLOCK
"""With fewer chunks there are too few blocks to draw from: no interval, and no winner."""
DRAWS = 2000
GATED = (
    "translation_error_mm", "rotation_error_deg", "direction_cosine", "path_error_mm", "gripper_agreement",
    "seam_jump_mm", "text_recall_of_instruction", "text_f1_to_reference",
)  # fmt: skip
SCHEMA = "instructvla.replay/1"
_FLOORS = {"mm": 0.05, "deg": 0.02, "": 0.002}
"""Differences below these are rounding, whatever their share."""


@dataclass(frozen=True)
class Difference:
    """Mean of B minus A over paired chunks with its 95 % bootstrap interval. `better` is "A", "B" or "".

    With fewer than MIN_CHUNKS chunks `low` and `high` are NaN, and `better` is "".
    """

    metric: str
    n: int
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    better: str


@dataclass(frozen=True)
class Regression:
    """One number of the gate: `worse_by` is the share of the baseline by which it got worse (negative: better)."""

    metric: str
    before: float
    after: float
    worse_by: float
    failed: bool


def compare(a: ChunkScores, b: ChunkScores, seed: int = 0) -> tuple[Difference, ...]:
    """Paired differences of every number, over the chunks that both made from the same image."""
    keys_b = {key: n for n, key in enumerate(zip(b.episode.tolist(), b.received_s.tolist(), strict=True))}
    pairs = [
        (n, keys_b[key])
        for n, key in enumerate(zip(a.episode.tolist(), a.received_s.tolist(), strict=True))
        if key in keys_b
    ]
    rows = np.array(pairs, int).reshape(-1, 2)
    random = np.random.default_rng(seed)
    return tuple(
        _difference(name, a.values[name][rows[:, 0]], b.values[name][rows[:, 1]], more, random)
        for name, (_, more) in METRICS.items()
    )


def _difference(name: str, a: np.ndarray, b: np.ndarray, more: bool, random: np.random.Generator) -> Difference:
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    if not len(a):
        return Difference(name, 0, math.nan, math.nan, math.nan, math.nan, math.nan, "")
    gap = b - a
    low = high = math.nan
    if len(gap) >= MIN_CHUNKS:
        low, high = np.percentile(_block_means(gap, random), [2.5, 97.5]).tolist()
    better = ""
    if low > 0.0 or high < 0.0:
        better = "B" if (low > 0.0) == more else "A"
    return Difference(name, len(a), float(a.mean()), float(b.mean()), float(gap.mean()), low, high, better)


def _block_means(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(DRAWS,) means of resampled moving blocks."""
    sums = np.convolve(values, np.ones(BLOCK), mode="valid")  # of every block
    drawn = random.integers(0, len(sums), (DRAWS, round(len(values) / BLOCK)))
    return sums[drawn].mean(axis=1) / BLOCK


def read_baseline(path: Path) -> dict[str, Any]:
    """The report at ``path`` (a report.json). Raises FileNotFoundError, or ValueError for what is not such a report."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also what is not UTF-8
        raise ValueError(f"{path} is not JSON ({error}); give the report.json of an earlier replay") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        form = repr(found.get("schema")) if isinstance(found, dict) else type(found).__name__
        raise ValueError(f"{path} has the form {form}, expected {SCHEMA}; make the baseline anew")
    if not _complete(found):
        raise ValueError(f"{path} lacks what a report of a replay holds; make the baseline anew")
    return found


def _complete(found: Mapping[str, Any]) -> bool:
    """Whether all is there that the gate uses."""
    bags, summary = found.get("bags"), found.get("summary")
    if not (isinstance(bags, list) and isinstance(summary, dict) and summary and isinstance(found.get("seed"), int)):
        return False
    first = next(iter(summary.values()))
    return (
        all(isinstance(bag, dict) and {"fingerprint", "actions"} <= bag.keys() for bag in bags)
        and isinstance(first, dict)
        and all(_is_cell(first[name]) for name in GATED if name in first)
        and isinstance(found.get("options", {}), dict)
    )


def _is_cell(cell: Any) -> bool:
    return (
        isinstance(cell, dict)
        and {"unit", "higher_is_better", "mean"} <= cell.keys()
        and isinstance(cell["mean"], int | float | None)
    )


def check_baseline(baseline: Mapping[str, Any], seed: int, options: Mapping[str, Any]) -> None:
    """Raises ValueError where a replay with these options could not be compared with the baseline."""
    if baseline["seed"] != seed:
        raise ValueError(f"the baseline was made with seed {baseline['seed']}, this report with {seed}; say --seed")
    before = baseline.get("options", options)  # reports of older versions do not tell
    for name in sorted(options.keys() | before.keys()):
        old, new = before.get(name), options.get(name)
        if old != new:
            raise ValueError(
                f"the baseline was made with {name} {old!r}, this report with {new!r}; say the same, or make it anew"
            )


def gate(report: Mapping[str, Any], baseline: Mapping[str, Any], limit: float) -> tuple[Regression, ...]:
    """The first checkpoint's means against those of an older report; fails where one is worse by more than `limit`.

    Raises ValueError where the two cannot be compared: other bags, recorded actions, seed or options.
    """
    for what, key in (("bags", "fingerprint"), ("recorded actions", "actions")):
        old, new = ([bag[key] for bag in made["bags"]] for made in (baseline, report))
        if old != new:
            raise ValueError(
                f"the baseline was made from other {what}; replay the same ones, or make the baseline anew"
            )
    check_baseline(baseline, report["seed"], report.get("options", {}))
    before, after = (next(iter(made["summary"].values())) for made in (baseline, report))
    found = []
    for name in GATED:
        old, new = before.get(name, {}), after.get(name, {})
        if old.get("mean") is None or new.get("mean") is None:
            if old.get("mean") is not None:
                found.append(Regression(name, old["mean"], math.nan, math.inf, True))
            continue
        loss = (old["mean"] - new["mean"]) if old["higher_is_better"] else (new["mean"] - old["mean"])
        share = loss / max(abs(old["mean"]), 1e-9)
        floor = _FLOORS.get(old["unit"], 0.0)
        found.append(Regression(name, old["mean"], new["mean"], share, share > limit and loss > floor))
    return tuple(found)
