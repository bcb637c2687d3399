"""Several datasets as one: which dataset, episode and step a sample comes from, by weights that are numbers.

Every draw is a function of the generator alone, so a run that is resumed at a step draws what it would have drawn.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .formats.episode import DataError, Episode, EpisodeDataset
from .survey import Survey

logger = logging.getLogger(__name__)

EPISODES_KEPT = 64
"""Episodes whose numbers (and encoded images, where the format has them one by one) stay in memory."""


@dataclass(frozen=True)
class Part:
    """One dataset of a mixture. ``weight``: how much more often one of its steps is drawn than one of weight 1.

    Its last ``held_out`` episodes that have an instruction are never drawn.
    """

    dataset: EpisodeDataset
    survey: Survey
    weight: float = 1.0
    held_out: int = 0

    def spoken(self) -> np.ndarray:
        """Numbers of the episodes that have an instruction."""
        return np.flatnonzero(self.survey.spoken)

    def kept_apart(self) -> np.ndarray:
        """Numbers of the episodes that are not trained on."""
        return self.spoken()[len(self.spoken()) - self.held_out :]


@dataclass(frozen=True)
class Place:
    """One step of one episode."""

    part: int
    episode: int
    step: int


class Mixture:
    """Draws steps: a dataset's share goes with its weight times its number of steps (reference §5.5)."""

    def __init__(self, parts: Sequence[Part]) -> None:
        """Raises DataError where nothing can be drawn, and logs the effective shares."""
        if not parts or any(part.weight <= 0 for part in parts):
            raise DataError(f"found weights {[part.weight for part in parts]}, expected one above 0 for each dataset")
        self.parts = tuple(parts)
        self._episodes = [part.spoken()[: len(part.spoken()) - part.held_out] for part in parts]
        lengths = [np.array(p.survey.lengths)[own] for p, own in zip(parts, self._episodes, strict=True)]
        for part, own in zip(parts, self._episodes, strict=True):
            if not len(own):
                raise DataError(f"{part.dataset.root}: found no episode with an instruction to train on, expected some")
        self._ends = [np.cumsum(own) for own in lengths]
        mass = np.array([part.weight * ends[-1] for part, ends in zip(parts, self._ends, strict=True)])
        self.shares = mass / mass.sum()
        for part, ends, share in zip(parts, self._ends, self.shares, strict=True):
            logger.info(
                "%s: weight %g, %d steps, %.1f %% of the draws", part.dataset.name, part.weight, ends[-1], 100 * share
            )
        self.episode = lru_cache(maxsize=EPISODES_KEPT)(self._episode)

    def __len__(self) -> int:
        """Steps that can be drawn."""
        return int(sum(ends[-1] for ends in self._ends))

    def draw(self, count: int, rng: np.random.Generator) -> list[Place]:
        """Independent draws."""
        chosen = rng.choice(len(self.parts), size=count, p=self.shares)
        return [self._place(int(part), rng) for part in chosen]

    def length(self, place: Place) -> int:
        return self.parts[place.part].survey.lengths[place.episode]

    def name(self, place: Place) -> str:
        """By which a person finds the step again."""
        return f"{self.parts[place.part].dataset.name} episode {place.episode} step {place.step}"

    def _place(self, part: int, rng: np.random.Generator) -> Place:
        number = int(rng.integers(self._ends[part][-1]))
        own = int(np.searchsorted(self._ends[part], number, side="right"))
        start = int(self._ends[part][own - 1]) if own else 0
        return Place(part, int(self._episodes[part][own]), number - start)

    def _episode(self, part: int, number: int) -> Episode:
        found = self.parts[part].dataset[number]
        expected = self.parts[part].survey.lengths[number]
        if len(found) != expected:
            raise DataError(
                f"{found.name}: found {len(found)} steps, the survey says {expected}; was the data changed?"
            )
        return found
