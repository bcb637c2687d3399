"""Episodes of several datasets as the frames that stages train on: numbers mapped from disk, images when asked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from instructvla_model.image import ImageRecipe
from instructvla_training.language.vla_it import EpisodeAnnotation

from .formats.annotated import AnnotatedDataset
from .formats.episode import DataError, Episode, EpisodeDataset, StateLayout
from .formats.llava import LlavaDataset
from .motions import motion_at
from .shards import EpisodeRecord, Frames
from .survey import Survey

logger = logging.getLogger(__name__)

MULTIMODAL = "multimodal"
"""Source of the frames that are images of conversations; they have no action."""
HELD_OUT_EPISODES = 2
"""The last episodes of each dataset are never trained on, if it has more than ten times as many."""
BUDGET_BYTES = 2 * 2**30
EPISODES_OPEN = 64


@dataclass(frozen=True)
class Part:
    """One dataset and its survey. ``weight``: how much more often one of its steps is drawn than one of weight 1."""

    dataset: EpisodeDataset
    survey: Survey
    weight: float = 1.0

    def step_weights(self) -> np.ndarray:
        """(steps,) float32: 0 for episodes without an instruction and for those kept apart."""
        used = self.survey.spoken.astype(np.float32)
        if keeps_apart(len(used)):
            used[-HELD_OUT_EPISODES:] = 0.0
        return np.repeat(self.weight * used, self.survey.lengths).astype(np.float32)


@dataclass(frozen=True)
class Words:
    """What is said of one episode."""

    name: str
    instruction: str
    annotation: EpisodeAnnotation | None


def keeps_apart(episodes: int) -> bool:
    """Whether the last of so many episodes are never trained on."""
    return episodes > 10 * HELD_OUT_EPISODES


class EpisodeFrames:
    """``frames`` of all parts, one after the other, then one for each conversation, which weighs nothing.

    A dataset's share of the draws goes with its weight times its number of steps (reference §5.5).

    Where the images fit into ``budget_bytes`` at the size of the recipes, an episode is decoded from beginning to end
    when one of its images is first asked for, and kept; otherwise every image is decoded alone and none is kept.
    """

    def __init__(
        self, parts: Sequence[Part], conversations: LlavaDataset | None, views: Sequence[str],
        image: ImageRecipe, vlm_image: ImageRecipe, budget_bytes: int = BUDGET_BYTES,
    ) -> None:  # fmt: skip
        """Raises DataError where two parts have one name, or an instruction is nowhere to be found."""
        names = [part.survey.name for part in parts]
        if len(set(names)) < len(names) or not parts:
            raise DataError(f"found datasets {names}, expected at least one and different names; rename a folder")
        silent = [part.survey.name for part in parts if not part.survey.spoken.any()]
        if silent:
            raise DataError(f"{', '.join(silent)}: found no episode with an instruction, expected some to train on")
        if any(part.weight <= 0 for part in parts):
            raise DataError(f"found weights {[part.weight for part in parts]}, expected numbers above 0")
        self.parts, self.conversations = tuple(parts), conversations
        records = [record for part in parts for record in _records(part.survey)]
        self._own = len(records)  # episodes; conversations follow
        extra = len(conversations) if conversations is not None else 0
        records += [_record(number, 1, MULTIMODAL) for number in range(extra)]
        self.part = np.repeat(np.arange(len(parts)), [len(part.survey.lengths) for part in parts])  # by episode
        self.episode = lru_cache(maxsize=EPISODES_OPEN)(self._open)
        weights = [part.step_weights() for part in parts]
        total = sum(float(own.sum()) for own in weights)
        self.shares = {part.survey.name: float(own.sum()) / total for part, own in zip(parts, weights, strict=True)}
        for part in parts:
            text = f"{part.survey.name}: weight {part.weight:g}, {part.survey.n_steps} steps"
            logger.info("%s, %.1f %% of the draws", text, 100 * self.shares[part.survey.name])
        columns: dict[str, Any] = {
            "action": _joined([part.survey.action_XA for part in parts], extra),
            "state": _joined([part.survey.state_XS for part in parts], extra),
            "weight": np.concatenate([*weights, np.zeros(extra, np.float32)]),
        }
        self.frames = _frames(records, columns)
        needed = len(self.frames) * 3 * (len(views) * _side(image) ** 2 + (image != vlm_image) * _side(vlm_image) ** 2)
        keep = needed <= budget_bytes
        logger.info("images: %.2f GiB, %s", needed / 2**30, "kept in memory" if keep else "decoded when drawn")
        self.views = [PixelColumn(self, view, image, keep) for view in views]
        self.vlm_view = self.views[0] if image == vlm_image else PixelColumn(self, views[0], vlm_image, keep)
        columns["image"] = self.views[0]

    def words(self, episode: int) -> Words:
        """Of the episode with this number among all frames."""
        part, number = self._where(episode)
        annotations: Mapping[tuple[str, str], EpisodeAnnotation] = {}
        if isinstance(part.dataset, AnnotatedDataset):
            annotations = part.dataset.annotations()
        key = part.survey.keys[number]
        return Words(f"{part.survey.name} {key[1]}", part.survey.instructions[number], annotations.get(key))

    def motion(self, frame: int) -> str:
        """The language motion of a frame; empty where there is none."""
        episode, step = int(self.frames.episode[frame]), int(self.frames.step[frame])
        annotation = self.words(episode).annotation
        if annotation is not None and step < len(annotation.move_primitive):
            return annotation.move_primitive[step]
        first = int(self.frames.first[episode])
        states = self.frames.state[first : first + self.frames.episodes[episode].length]
        return motion_at(states, step, self.layout(episode))

    def layout(self, episode: int) -> StateLayout:
        return self._where(episode)[0].dataset.layout

    def image(self, episode: int, step: int, view: str) -> np.ndarray | None:
        """As the camera took it; None where there is none."""
        if episode >= self._own:
            assert self.conversations is not None
            return self.conversations[episode - self._own].pixels()
        images = self.episode(episode).images.get(view)
        return images[step] if images is not None else None

    def _where(self, episode: int) -> tuple[Part, int]:
        part = int(self.part[episode])
        return self.parts[part], episode - int(np.searchsorted(self.part, part))

    def _open(self, episode: int) -> Episode:
        part, number = self._where(episode)
        found = part.dataset[number]
        expected = part.survey.lengths[number]
        if len(found) != expected:
            raise DataError(f"{found.name}: found {len(found)} steps, surveyed {expected}; was the data changed?")
        return found


class PixelColumn:
    """(n, S, S, 3) uint8 of all frames, indexed as numpy does by a slice or by whole numbers (m,)."""

    def __init__(self, source: EpisodeFrames, view: str, recipe: ImageRecipe, keep: bool) -> None:
        self._source, self._view, self._recipe = source, view, recipe
        self._shape = (_side(recipe), _side(recipe), 3)
        self._kept: dict[int, np.ndarray] | None = {} if keep else None

    def __getitem__(self, index: np.ndarray | slice) -> np.ndarray:
        frames = self._source.frames
        if isinstance(index, slice):
            index = np.arange(len(frames))[index]
        found = np.empty((len(index), *self._shape), np.uint8)
        for row, frame in enumerate(index):
            found[row] = self._one(int(frames.episode[frame]), int(frames.step[frame]))
        return found

    def _one(self, episode: int, step: int) -> np.ndarray:
        if self._kept is None:
            return self._pixels(self._source.image(episode, step, self._view))
        if episode not in self._kept:
            self._kept[episode] = np.stack(self._whole(episode))
        return self._kept[episode][step]

    def _whole(self, episode: int) -> list[np.ndarray]:
        length = self._source.frames.episodes[episode].length
        if self._source.frames.episodes[episode].source == MULTIMODAL:
            return [self._pixels(self._source.image(episode, 0, self._view))]
        images = self._source.episode(episode).images.get(self._view)
        return [self._pixels(image) for image in images] if images is not None else [self._pixels(None)] * length

    def _pixels(self, image: np.ndarray | None) -> np.ndarray:
        return np.zeros(self._shape, np.uint8) if image is None else self._recipe.pixels(image)


def _records(survey: Survey) -> list[EpisodeRecord]:
    return [_record(number, length, survey.name) for number, length in enumerate(survey.lengths)]


def _record(number: int, length: int, source: str) -> EpisodeRecord:
    return EpisodeRecord(seed=number, length=length, family="", target="", place=None, success=True, source=source)


def _joined(columns: list[np.ndarray], extra: int) -> np.ndarray:
    """One column of all parts; a single one stays mapped from disk."""
    if len(columns) == 1 and not extra:
        return columns[0].view(np.ndarray)
    return np.concatenate([*columns, np.zeros((extra, columns[0].shape[1]), np.float32)])


def _frames(records: list[EpisodeRecord], columns: dict[str, np.ndarray]) -> Frames:
    lengths = np.array([record.length for record in records])
    return Frames(
        columns=columns,
        episodes=tuple(records),
        episode=np.repeat(np.arange(len(records)), lengths),
        step=np.concatenate([np.arange(length) for length in lengths]),
        first=np.concatenate([[0], np.cumsum(lengths)[:-1]]),
    )


def _side(recipe: ImageRecipe) -> int:
    """Pixels of a side of what the recipe makes."""
    size = (1024, 1024)
    for step in recipe.steps:
        size = step.output_size(size)
    return size[0]
