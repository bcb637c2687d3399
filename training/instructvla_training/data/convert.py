"""Any dataset written as LeRobot v3, its annotations beside it under their new keys, of bags also their account."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from instructvla_training.language import vla_it

from .formats import bag_account
from .formats.annotated import unannotated
from .formats.bag import BagDataset
from .formats.episode import DataError, Episode, EpisodeDataset, Images
from .formats.lerobot import UNKNOWN_ROBOT
from .formats.lerobot_writer import LeRobotWriter
from .lint import lint_episode

logger = logging.getLogger(__name__)

ANNOTATIONS_FILE = "meta/vla_it.json"


@dataclass(frozen=True)
class ResizedImages(Images):
    """Others at ``height``, the aspect kept; both sides are even."""

    images: Images
    height: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, step: int) -> np.ndarray:
        return self._resized(self.images[step])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self._resized(image) for image in self.images)

    def _resized(self, image: np.ndarray) -> np.ndarray:
        width = 2 * round(image.shape[1] * self.height / image.shape[0] / 2)
        return cv2.resize(image, (width, self.height), interpolation=cv2.INTER_AREA)


def _refuse_bad(episode: Episode) -> None:
    """Raises DataError where the linter finds an error in the episode, or one of its images cannot be read."""
    errors = [f"{found.code}: {found.text}" for found in lint_episode(episode) if found.error]
    if errors:
        raise DataError("; ".join(errors))
    for images in episode.images.values():
        for _ in images:
            pass


def convert(
    dataset: EpisodeDataset, target: Path, height: int | None = None, codec: str = "av1", robot: str = "",
    report: Callable[[int, int], None] = lambda done, total: None, skip_bad: bool = False, without: Sequence[int] = (),
) -> int:  # fmt: skip
    """Writes every episode but those numbered ``without`` to the new folder ``target`` -> how many. Raises DataError.

    One episode's numbers and one image are in memory at a time. ``skip_bad``: episodes that cannot be read, or that the
    linter calls errors, are left out and named in the log with what is wrong; each is decoded twice for that.
    """
    unknown = sorted(number for number in set(without) if not 0 <= number < len(dataset))
    if unknown:
        raise DataError(f"{dataset.root}: found no episodes {unknown}, expected numbers from 0 to {len(dataset) - 1}")
    annotations = []
    rate = 1.0 / dataset.dt_s
    fps = float(round(rate)) if abs(rate - round(rate)) < 1e-3 else rate
    name = robot or dataset.robot or UNKNOWN_ROBOT
    with LeRobotWriter(target, fps=fps, layout=dataset.layout, robot_type=name, codec=codec) as writer:
        for number in range(len(dataset)):
            report(number, len(dataset))
            if number in without:
                continue
            try:
                episode = dataset[number]
                if skip_bad:
                    _refuse_bad(episode)
            except DataError as error:
                if not skip_bad:
                    raise
                logger.warning("left out episode %d: %s", number, error)
                continue
            if episode.annotation is not None:
                own = str(writer.episodes)  # its number among those that are kept
                annotations.append(replace(episode.annotation, file_path=target.name, episode_id=own))
            if height is not None:
                images = {view: ResizedImages(found, height) for view, found in episode.images.items()}
                episode = replace(episode, images=images)
            writer.add(episode)
        count = writer.episodes
    if annotations:
        vla_it.write(target / ANNOTATIONS_FILE, annotations)
    source = unannotated(dataset)
    if isinstance(source, BagDataset):
        bag_account.write(target, source.dt_s, source.accounts, source.problems)
    return count
