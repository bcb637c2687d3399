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
"""The last episodes with words of each dataset are never trained on, if it has more than ten times as many."""
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
        used[kept_apart(self.survey.spoken)] = 0.0
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


def kept_apart(spoken: np.ndarray) -> np.ndarray:
    """Numbers of the episodes that are never trained on: the last with words, where there are enough of those."""
    numbers = np.flatnonzero(spoken)
    return numbers[-HELD_OUT_EPISODES:] if keeps_apart(len(numbers)) else numbers[:0]


class EpisodeFrames:
    """``frames`` of all parts, one after the other, then one for each conversation, which weighs nothing.

    A dataset's share of the draws goes with its weight times its number of steps (reference §5.5).

    Where the images fit into ``budget_bytes`` at the size of the recipes, an episode is decoded from beginning to end
    when one of its images is first asked for, and kept; otherwise every image is decoded alone and none is kept.
    """

    def __init__(
        self, parts: Sequence[Part], conversations: LlavaDataset | None, views: Sequence[str],
        image: ImageRecipe, vlm_image: ImageRecipe, budget_bytes: int = BUDGET_BYTES, side_by_side: bool = False,
    ) -> None:  # fmt: skip
        """``side_by_side``: the VLM looks at all views in one picture, as its runtime shows them, else at the first.

        Raises DataError where two parts have one name, or a view, an instruction or the episodes of annotations are
        nowhere to be found.
        """
        names = [part.survey.name for part in parts]
        if len(set(names)) < len(names) or not parts:
            raise DataError(f"found datasets {names}, expected at least one and different names; rename a folder")
        silent = [part.survey.name for part in parts if not part.survey.spoken.any()]
        if silent:
            raise DataError(f"{', '.join(silent)}: found no episode with an instruction, expected some to train on")
        if any(part.weight <= 0 for part in parts):
            raise DataError(f"found weights {[part.weight for part in parts]}, expected numbers above 0")
        _check_views(parts, views)
        _check_annotations(parts)
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
        joined = side_by_side and len(views) > 1
        own_vlm = joined or image != vlm_image
        needed = len(self.frames) * 3 * (len(views) * _side(image) ** 2 + own_vlm * _side(vlm_image) ** 2)
        keep = needed <= budget_bytes
        logger.info("images: %.2f GiB, %s", needed / 2**30, "kept in memory" if keep else "decoded when drawn")
        self.views = [PixelColumn(self, (view,), image, keep) for view in views]
        seen = tuple(views) if joined else (views[0],)
        self.vlm_view = PixelColumn(self, seen, vlm_image, keep) if own_vlm else self.views[0]
        self.halves = len(seen)
        """How many views stand side by side in an action's picture for the VLM; a conversation has one picture."""
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
        annotation, length = self.words(episode).annotation, self.frames.episodes[episode].length
        if annotation is not None and len(annotation.move_primitive) >= length:
            return annotation.move_primitive[step]
        first = int(self.frames.first[episode])
        states = self.frames.state[first : first + length]
        return motion_at(states, step, self.layout(episode))

    def layout(self, episode: int) -> StateLayout:
        return self._where(episode)[0].dataset.layout

    def image(self, episode: int, step: int, view: str) -> np.ndarray | None:
        """As the camera took it; None where a conversation has none."""
        if episode >= self._own:
            assert self.conversations is not None
            return self.conversations[episode - self._own].pixels()
        return self.episode(episode).view(view)[step]

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
    """(n, S, S, 3) uint8 of all frames, indexed as numpy does by a slice or by whole numbers (m,).

    Of one view, or of several side by side.
    """

    def __init__(self, source: EpisodeFrames, views: tuple[str, ...], recipe: ImageRecipe, keep: bool) -> None:
        self._source, self._views, self._recipe = source, views, recipe
        self._shape = (_side(recipe), _side(recipe), 3)
        self._kept: dict[int, np.ndarray] | None = {} if keep else None

    def __len__(self) -> int:
        return len(self._source.frames)

    def __getitem__(self, index: np.ndarray | slice) -> np.ndarray:
        frames = self._source.frames
        if isinstance(index, slice):
            index = np.arange(len(self))[index]
        found = np.empty((len(index), *self._shape), np.uint8)
        for row, frame in enumerate(index):
            found[row] = self._one(int(frames.episode[frame]), int(frames.step[frame]))
        return found

    def _one(self, episode: int, step: int) -> np.ndarray:
        try:
            if self._kept is None:
                return self._pixels(self._images(episode, step))
            if episode not in self._kept:
                self._kept[episode] = np.stack(self._whole(episode))
        except DataError as error:
            raise DataError(f"{error}; mend the file and go on (finetune: --mended)") from error
        return self._kept[episode][step]

    def _whole(self, episode: int) -> list[np.ndarray]:
        if self._source.frames.episodes[episode].source == MULTIMODAL:
            return [self._pixels(self._images(episode, 0))]
        found = self._source.episode(episode)
        return [self._pixels(images) for images in zip(*(found.view(view) for view in self._views), strict=True)]

    def _images(self, episode: int, step: int) -> list[np.ndarray]:
        """One for each view, one alone of a conversation, none where that is without."""
        conversation = self._source.frames.episodes[episode].source == MULTIMODAL
        found = [self._source.image(episode, step, view) for view in self._views[: 1 if conversation else None]]
        return [image for image in found if image is not None]

    def _pixels(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return self._recipe.joined_pixels(images) if images else np.zeros(self._shape, np.uint8)


def _check_views(parts: Sequence[Part], views: Sequence[str]) -> None:
    """A policy that is trained on black pictures learns to act blindly."""
    for part in parts:
        missing = [view for view in views if view not in part.dataset.views]
        if missing:
            raise DataError(
                f"{part.dataset.root}: found views {list(part.dataset.views)}, expected {list(views)}, which the "
                f"policy looks through; name the camera: --camera {missing[0]}=KEY, or bring data that has it"
            )


def _check_annotations(parts: Sequence[Part]) -> None:
    """Each file of annotations must belong to an episode of some part that it was given for."""
    by_file: dict[frozenset[tuple[str, str]], list[Part]] = {}
    for part in parts:
        if isinstance(part.dataset, AnnotatedDataset):
            by_file.setdefault(frozenset(part.dataset.annotations()), []).append(part)
    for group in by_file.values():
        keys = [part.survey.keys for part in group]
        dataset = group[0].dataset
        assert isinstance(dataset, AnnotatedDataset)
        logger.info("annotations: %d of %d episodes have some", dataset.joined(*keys), sum(map(len, keys)))


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
