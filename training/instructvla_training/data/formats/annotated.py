"""VLA-IT annotations joined to the episodes of a dataset by file path and episode id (reference §5.7)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from instructvla_training.language.vla_it import EpisodeAnnotation

from .episode import DataError, Episode, EpisodeDataset

logger = logging.getLogger(__name__)


class AnnotatedDataset(EpisodeDataset):
    """``dataset`` with an annotation at every episode that has one; the others stay as they are."""

    def __init__(self, dataset: EpisodeDataset, annotations: Iterable[EpisodeAnnotation]) -> None:
        self._dataset = dataset
        self._by_key = {(found.file_path, found.episode_id): found for found in annotations}
        self.name, self.format, self.root = dataset.name, dataset.format, dataset.root
        self.dt_s, self.layout, self.views, self.robot = dataset.dt_s, dataset.layout, dataset.views, dataset.robot

    @property
    def reading(self) -> str:
        return self._dataset.reading

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Episode:  # type: ignore[override]
        episode = self._dataset[index]
        found = self._by_key.get((episode.file_path, episode.episode_id))
        if found is not None and found.move_primitive and len(found.move_primitive) < len(episode):
            logger.warning(
                "%s: %d move primitives for %d steps; they are made from the states instead",
                episode.name, len(found.move_primitive), len(episode),
            )  # fmt: skip
            found = replace(found, move_primitive=())
        return replace(episode, annotation=found) if found else episode

    def other_splits(self) -> Sequence[EpisodeDataset]:
        return self._dataset.other_splits()

    def files(self) -> list[Path]:
        """Those of the episodes alone: annotations do not change what statistics are computed of."""
        return self._dataset.files()

    def annotations(self) -> Mapping[tuple[str, str], EpisodeAnnotation]:
        """By file path and episode id; some may belong to no episode here."""
        return self._by_key

    def joined(self, keys: Iterable[tuple[str, str]]) -> int:
        """How many of the dataset's episodes, by their ``keys``, have an annotation. Raises DataError at none."""
        keys = list(keys)
        count = sum(key in self._by_key for key in keys)
        if not count:
            own, others = keys[:1], list(self._by_key)[:1]
            raise DataError(
                f"{self.root}: found no episode for any of {len(self._by_key)} annotations (of file path and episode "
                f"such as {others}, here they are {own}), expected them to meet; give the folder the name that it had "
                "when it was annotated, or annotate it again"
            )
        return count
