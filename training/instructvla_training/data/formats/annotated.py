"""VLA-IT annotations joined to the episodes of a dataset by file path and episode id (reference §5.7)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from instructvla_training.language.vla_it import EpisodeAnnotation

from .episode import Episode, EpisodeDataset

logger = logging.getLogger(__name__)


class AnnotatedDataset(EpisodeDataset):
    """``dataset`` with an annotation at every episode that has one; the others stay as they are."""

    def __init__(self, dataset: EpisodeDataset, annotations: Iterable[EpisodeAnnotation]) -> None:
        self._dataset = dataset
        self._by_key = {(found.file_path, found.episode_id): found for found in annotations}
        self.name, self.format, self.root = dataset.name, dataset.format, dataset.root
        self.dt_s, self.layout, self.views = dataset.dt_s, dataset.layout, dataset.views

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

    def files(self) -> list[Path]:
        """Those of the episodes alone: annotations do not change what statistics are computed of."""
        return self._dataset.files()

    def annotations(self) -> Mapping[tuple[str, str], EpisodeAnnotation]:
        """By file path and episode id; some may belong to no episode here."""
        return self._by_key
