"""Any dataset written as LeRobot v3, its annotations beside it under their new keys, of bags also their account."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from instructvla_training.language import vla_it

from .formats import bag_account
from .formats.bag import BagDataset
from .formats.episode import EpisodeDataset, Images
from .formats.lerobot_writer import LeRobotWriter

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


def convert(
    dataset: EpisodeDataset, target: Path, height: int | None = None, codec: str = "av1", robot: str = "unknown",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> int:  # fmt: skip
    """Writes every episode to the new folder ``target`` -> how many. Raises DataError.

    One episode's numbers and one image are in memory at a time.
    """
    annotations = []
    rate = 1.0 / dataset.dt_s
    fps = float(round(rate)) if abs(rate - round(rate)) < 1e-3 else rate
    with LeRobotWriter(target, fps=fps, layout=dataset.layout, robot_type=robot, codec=codec) as writer:
        for number, episode in enumerate(dataset):
            report(number, len(dataset))
            if episode.annotation is not None:
                annotations.append(replace(episode.annotation, file_path=target.name, episode_id=str(number)))
            if height is not None:
                images = {view: ResizedImages(found, height) for view, found in episode.images.items()}
                episode = replace(episode, images=images)
            writer.add(episode)
        count = writer.episodes
    if annotations:
        vla_it.write(target / ANNOTATIONS_FILE, annotations)
    if isinstance(dataset, BagDataset):
        bag_account.write(target, dataset.dt_s, dataset.accounts, dataset.problems)
    return count
