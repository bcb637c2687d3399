"""Opens a dataset of whatever format lies at a path."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from instructvla_training.language import vla_it

from .annotated import AnnotatedDataset
from .bag import BagDataset, find_bags
from .episode import DataError, EpisodeDataset, StateLayout
from .lerobot import LeRobotDataset, is_lerobot
from .rlds import RldsDataset
from .tfds import find_version, is_tfds

logger = logging.getLogger(__name__)

STATES = {"rpy": StateLayout.RPY, "quaternion": StateLayout.QUATERNION, "axis-angle": StateLayout.AXIS_ANGLE}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a dataset does not say of itself; empty values leave it to the reader."""

    cameras: Mapping[str, str] = field(default_factory=dict)  # view -> camera key or topic
    state: str | None = None  # of STATES; LeRobot
    invert_gripper: str = ""  # LeRobot: "action", "state" or "both"
    split: str = "train"  # RLDS
    source: str | None = None  # RLDS
    actions: str = "auto"  # bags: one of bag.ACTIONS
    annotations: Path | None = None


def open_dataset(path: Path, reading: Reading | None = None) -> EpisodeDataset:
    """The episodes at ``path``: a LeRobot folder, a TFDS folder (or one with versions), or bags. Raises DataError."""
    path, reading = Path(path), reading or Reading()
    if not path.exists():
        raise DataError(f"{path} does not exist; expected a folder with a dataset; correct the path")
    dataset = _open(path, reading)
    if reading.annotations is None:
        return dataset
    return AnnotatedDataset(dataset, vla_it.read(reading.annotations))


def _open(path: Path, reading: Reading) -> EpisodeDataset:
    if is_lerobot(path):
        layout = STATES[reading.state] if reading.state else None
        return LeRobotDataset(path, cameras=reading.cameras, layout=layout, invert_gripper=reading.invert_gripper)
    tfds = is_tfds(find_version(path))
    for name in ("state", "invert_gripper", *(["cameras"] if tfds else [])):
        if getattr(reading, name):
            option = "--" + name.removesuffix("s").replace("_", "-")
            logger.warning("%s: %s changes nothing here, it is for LeRobot datasets", path, option)
    if tfds:
        return RldsDataset(path, split=reading.split, source=reading.source)
    if find_bags(path):
        return BagDataset(path, cameras=reading.cameras, actions=reading.actions)
    raise DataError(
        f"{path}: found no dataset; expected LeRobot (meta/info.json), TFDS (dataset_info.json, features.json) or "
        "rosbag2 (metadata.yaml, or .mcap or .db3 files)"
    )
