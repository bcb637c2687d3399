"""VLA-IT annotations joined to the episodes of a dataset by file path and episode id (reference §5.7).

Where episodes share these, nobody can say whose an annotation is: that is refused, never guessed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from instructvla_training.language.vla_it import EpisodeAnnotation

from .episode import DataError, Episode, EpisodeDataset

logger = logging.getLogger(__name__)

Key = tuple[str, str]
"""File path and episode id."""


def refuse_shared(source: object, keys: Iterable[Key]) -> None:
    """Raises DataError, which names ``source``, where two of the keys of its episodes are the same."""
    for (path, number), count in Counter(keys).items():
        if count > 1:
            raise DataError(
                f"{source}: found several episodes with file path {path!r} and id {number!r}, expected one, as "
                "annotations are joined by these; write the dataset anew, which gives each episode an id of its own, "
                "and annotate that: instructvla-train data convert SOURCE TARGET"
            )


def unannotated(dataset: EpisodeDataset) -> EpisodeDataset:
    """What a dataset is without its annotations."""
    return dataset.dataset if isinstance(dataset, AnnotatedDataset) else dataset


class AnnotatedDataset(EpisodeDataset):
    """``dataset`` with an annotation at every episode that has one; the others stay as they are."""

    def __init__(self, dataset: EpisodeDataset, annotations: Iterable[EpisodeAnnotation]) -> None:
        self.dataset = dataset
        self._by_key = {(found.file_path, found.episode_id): found for found in annotations}
        self._number: dict[Key, int] = {}  # of the episode that was given the annotation
        self.name, self.format, self.root = dataset.name, dataset.format, dataset.root
        self.dt_s, self.layout, self.views, self.robot = dataset.dt_s, dataset.layout, dataset.views, dataset.robot

    @property
    def reading(self) -> str:
        return self.dataset.reading

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Episode:  # type: ignore[override]
        episode = self.dataset[index]
        key = episode.file_path, episode.episode_id
        found = self._by_key.get(key)
        if found is not None and self._number.setdefault(key, index % len(self)) != index % len(self):
            refuse_shared(self.root, [key, key])
        if found is not None and found.move_primitive and len(found.move_primitive) < len(episode):
            logger.warning(
                "%s: %d move primitives for %d steps; they are made from the states instead",
                episode.name, len(found.move_primitive), len(episode),
            )  # fmt: skip
            found = replace(found, move_primitive=())
        return replace(episode, annotation=found) if found else episode

    def other_splits(self) -> Sequence[EpisodeDataset]:
        return self.dataset.other_splits()

    def files(self) -> list[Path]:
        """Those of the episodes alone: annotations do not change what statistics are computed of."""
        return self.dataset.files()

    def annotations(self) -> Mapping[Key, EpisodeAnnotation]:
        """By file path and episode id; some may belong to no episode here."""
        return self._by_key

    def joined(self, *parts: Sequence[Key]) -> int:
        """How many episodes have an annotation, by the keys of this dataset, or of several with the same annotations.

        Raises DataError where none has, and where two of one dataset share theirs.
        """
        for part in parts:
            refuse_shared(self.root, [key for key in part if key in self._by_key])
        keys = [key for part in parts for key in part]
        count = sum(key in self._by_key for key in keys)
        if not count:
            own, others = keys[:1], list(self._by_key)[:1]
            raise DataError(
                f"{self.root}: found no episode for any of {len(self._by_key)} annotations (of file path and episode "
                f"such as {others}, here they are {own}), expected them to meet; give the folder the name that it had "
                "when it was annotated, or annotate it again"
            )
        return count
