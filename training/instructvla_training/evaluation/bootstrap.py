"""How far a share, or what two shares make together, would move with other draws of the scenes and training seeds.

A share of one training seed has Wilson's interval, all else the percentile bootstrap: trials are drawn anew with
replacement, and the training seeds too. All seeds and cells were tried on the same scenes and are drawn together, so
that the scenes' difficulty cancels in a comparison and does not average away over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .tables import wilson

DRAWS = 10_000
CONFIDENCE = 0.95
FEWEST = 5
"""Successes, and failures, of a cell below which a comparison has no interval: the draws would repeat too few cases."""
METHOD = (
    "Wilson's for the share of one training seed, else percentile bootstrap over trials and training seeds, "
    f"{DRAWS} draws; none below {FEWEST} successes or failures."
)

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
    if len(set(lengths)) != 1:
        raise ValueError(f"found {lengths} trials of the training seeds, expected the same scenes for all")
    rng = np.random.default_rng(seed)
    drawn = [np.zeros(DRAWS) for _ in cells]
    trials = rng.integers(lengths[0], size=(DRAWS, lengths[0]))
    chosen = rng.integers(len(lengths), size=(DRAWS, len(lengths)))  # training seeds
    for slot in range(len(lengths)):
        for number in range(len(lengths)):
            own = np.flatnonzero(chosen[:, slot] == number)
            for shares, rounds in zip(drawn, cells, strict=True):
                shares[own] += np.asarray(rounds[number], float)[trials[own]].mean(axis=1) / len(lengths)
    value = figure(*(np.array([np.mean([trials.mean() for trials in rounds])]) for rounds in cells))[0]
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(figure(*drawn), [tail, 100 - tail])
    return Interval(float(value), float(low), float(high))


def compared(rounds: Rounds, to: Rounds, figure: Callable[..., np.ndarray]) -> Interval:
    """Of two cells; the limits are NaN where one of them has too few successes or failures."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = interval([rounds, to], figure)
    counts = [(sum(int(trials.sum()) for trials in cell), sum(len(trials) for trials in cell)) for cell in (rounds, to)]
    few = any(min(won, tried - won) < FEWEST for won, tried in counts)
    return replace(found, low=math.nan, high=math.nan) if few else found


def share(rounds: Rounds) -> Interval:
    """Of trials that went well."""
    if len(rounds) == 1:
        counted = wilson(int(rounds[0].sum()), len(rounds[0]))
        return Interval(float(rounds[0].mean()), *counted)
    return interval([rounds], lambda shares: shares)


def ratio(rounds: Rounds, to: Rounds) -> Interval:
    """Of two shares."""
    return compared(rounds, to, lambda one, other: one / other)


def difference(rounds: Rounds, to: Rounds) -> Interval:
    """Of two shares."""
    return compared(rounds, to, lambda one, other: one - other)
