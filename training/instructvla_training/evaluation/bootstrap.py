"""Percentile bootstrap: how far a share, or what two shares make together, would move with other draws of the scenes.

Trials are drawn anew with replacement; where there are several training seeds, those are drawn first. Cells that were
tried on the same scenes are drawn together, so that the scenes' difficulty cancels in their comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 10_000
CONFIDENCE = 0.95

Rounds = Sequence[np.ndarray]
"""For each training seed, what came of each trial: (n,) bool."""


@dataclass(frozen=True)
class Interval:
    """A figure with the limits between which it lies with 95 % confidence."""

    value: float
    low: float
    high: float


def interval(cells: Sequence[Rounds], figure: Callable[..., np.ndarray], seed: int = 0) -> Interval:
    """Of ``figure``, a function of the cells' shares that takes arrays (draws,).

    Raises ValueError where the cells have other numbers of training seeds or trials.
    """
    shapes = {tuple(len(trials) for trials in rounds) for rounds in cells}
    if len(shapes) != 1 or not min(shapes):
        raise ValueError(f"found trials {sorted(shapes)} in the cells, expected the same in all; measure them again")
    (lengths,) = shapes
    rng = np.random.default_rng(seed)
    drawn = [np.zeros(DRAWS) for _ in cells]
    chosen = rng.integers(len(lengths), size=(DRAWS, len(lengths)))  # training seeds
    for slot in range(len(lengths)):
        for number, length in enumerate(lengths):
            own = np.flatnonzero(chosen[:, slot] == number)
            trials = rng.integers(length, size=(len(own), length))
            for shares, rounds in zip(drawn, cells, strict=True):
                shares[own] += np.asarray(rounds[number], float)[trials].mean(axis=1) / len(lengths)
    value = figure(*(np.array([np.mean([trials.mean() for trials in rounds])]) for rounds in cells))[0]
    tail = 50 * (1 - CONFIDENCE)
    found = figure(*drawn)
    finite = found[np.isfinite(found)]
    if not len(finite):
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.percentile(finite, [tail, 100 - tail])
    return Interval(float(value), float(low), float(high))


def share(rounds: Rounds) -> Interval:
    """Of trials that went well."""
    return interval([rounds], lambda shares: shares)


def ratio(rounds: Rounds, to: Rounds) -> Interval:
    """Of two shares; draws in which the second is 0 do not count."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return interval([rounds, to], lambda one, other: one / other)


def difference(rounds: Rounds, to: Rounds) -> Interval:
    """Of two shares."""
    return interval([rounds, to], lambda one, other: one - other)
