"""Which frames a batch is about: datasets by their weights, without the episodes that are kept for looking at."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from instructvla_training.data.episode_frames import HELD_OUT_EPISODES, keeps_apart
from instructvla_training.data.shards import Frames
from instructvla_training.recipes import Shares
from instructvla_training.refusals import RunError

logger = logging.getLogger(__name__)

SOURCES = {"stills": "still", "demonstrations": "demonstration", "corrections": "correction"}
"""What the episodes of a built-in dataset's folder are marked with; other datasets carry their own name."""


def held_out(frames: Frames) -> np.ndarray:
    """Numbers of the episodes that are kept apart, (n,) int."""
    sources = np.array([episode.source for episode in frames.episodes])
    kept = [np.flatnonzero(sources == source)[-HELD_OUT_EPISODES:] for source in dict.fromkeys(sources)]
    enough = [rows for rows in kept if keeps_apart(int(np.sum(sources == sources[rows[0]])))]
    return np.concatenate(enough) if enough else np.empty(0, int)


def names_of(frames: Frames, index: np.ndarray) -> tuple[str, ...]:
    """A name for each frame, by which a person finds it again."""
    found = []
    for i in index:
        episode = frames.episodes[frames.episode[i]]
        found.append(f"{episode.source} {episode.seed} frame {frames.step[i]}")
    return tuple(found)


@dataclass(frozen=True)
class Draw:
    """Draws frame numbers by weight. ``sources``: of the datasets that can come up."""

    cumulative: np.ndarray
    sources: tuple[str, ...]

    @classmethod
    def by_dataset(cls, frames: Frames, datasets: Shares, without: np.ndarray) -> Draw:
        """A frame's chance goes with its own weight times its dataset's: a dataset counts by its number of frames too.

        Raises RunError where nothing can be drawn.
        """
        source = np.array([episode.source for episode in frames.episodes])[frames.episode]
        weight = np.zeros(len(frames))
        for name, factor in datasets:
            own = source == SOURCES.get(name, name)
            weight[own] = factor * (1.0 if name == "stills" else frames.weight[own])
        weight[np.isin(frames.episode, without)] = 0.0
        if not weight.sum() > 0:
            names = ", ".join(name for name, _ in datasets)
            raise RunError(f"found no frame of {names} to draw from; expected some: instructvla-train data record")
        chosen = [SOURCES.get(name, name) for name, _ in datasets]
        for name, key in zip((name for name, _ in datasets), chosen, strict=True):
            share = weight[source == key].sum() / weight.sum()
            logger.info("%s: %d frames, %.1f %% of the draws", name, np.sum(source == key), 100 * share)
        return cls(np.cumsum(weight / weight.sum()), tuple(chosen))

    def __call__(self, count: int, rng: np.random.Generator) -> np.ndarray:
        return np.searchsorted(self.cumulative, rng.random(count)).clip(max=len(self.cumulative) - 1)
