"""Training data on disk: one folder per shard, one plain ``.npy`` file per column, one JSON line per episode.

A shard is written to a temporary folder and renamed when it is complete, so that a recording that is killed
at any moment loses at most the shard under way and never leaves a half-written one behind.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from instructvla_training.refusals import RunError

logger = logging.getLogger(__name__)

COLUMNS: dict[str, tuple[tuple[int | None, ...], str]] = {
    "image": ((None, None, 3), "uint8"),  # primary camera through the checkpoint's image recipe, RGB
    "grid": ((None, None), "uint8"),  # object index seen by each patch, NO_OBJECT where none
    "objects": ((None, 5), "float32"),  # per object x, y, z (m, bench frame), visible (0/1), yaw (rad)
    "state": ((8,), "float32"),  # measured state before the step, in the robot's base frame
    "action": ((7,), "float32"),  # what the demonstrator would do from here (the label)
    "weight": ((), "float32"),  # sampling weight of the frame
}
NO_OBJECT = 255


@dataclass(frozen=True)
class EpisodeRecord:
    """What is true of a whole episode. ``length`` frames; names index the simulation's object list."""

    seed: int
    length: int
    family: str
    target: str
    place: str | None
    success: bool
    source: str  # "demonstration" | "correction" | "still"
    motion: tuple[str, ...] = ()
    frames: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)


def write_shard(folder: Path, episodes: Iterable[EpisodeRecord]) -> None:
    """Writes ``episodes`` (with their frames) as the shard ``folder``; replaces nothing that is there.

    Raises ValueError where a column has another shape than its frames' number.
    """
    episodes = list(episodes)
    if not episodes:
        raise ValueError(f"{folder}: found no episodes, expected at least one; record some first")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, (shape, dtype) in COLUMNS.items():
        for episode in episodes:
            found = episode.frames[name].shape
            if len(found) != len(shape) + 1 or found[0] != episode.length:
                raise ValueError(
                    f"{folder}: column {name} of seed {episode.seed} has shape {found}, "
                    f"expected {episode.length} frames of {len(shape)} dimensions; record the episode again"
                )
        column = np.concatenate([episode.frames[name] for episode in episodes]).astype(dtype)
        np.save(partial / f"{name}.npy", column, allow_pickle=False)
    with (partial / "episodes.jsonl").open("w", encoding="utf-8") as lines:
        for episode in episodes:
            row = {k: v for k, v in asdict(_without_frames(episode)).items() if k != "frames"}
            lines.write(json.dumps(row) + "\n")
    os.replace(partial, folder)


def _without_frames(episode: EpisodeRecord) -> EpisodeRecord:
    return EpisodeRecord(**{**{k: getattr(episode, k) for k in episode.__dataclass_fields__}, "frames": {}})


@dataclass(frozen=True)
class Frames:
    """All shards of one or more folders, columns concatenated, in memory.

    ``episode`` and ``step`` (n,) locate each frame; ``first`` and ``last`` (episodes,) locate each episode.
    """

    columns: Mapping[str, np.ndarray]
    episodes: tuple[EpisodeRecord, ...]
    episode: np.ndarray
    step: np.ndarray
    first: np.ndarray

    def __len__(self) -> int:
        return len(self.episode)

    @cached_property
    def last(self) -> np.ndarray:
        return self.first + np.array([record.length for record in self.episodes]) - 1

    def __getattr__(self, name: str) -> np.ndarray:
        if name in COLUMNS:
            return self.columns[name]
        raise AttributeError(name)


def joined(parts: Sequence[Frames]) -> Frames:
    """Several sets of frames as one, in order."""
    episodes = np.cumsum([0, *(len(part.episodes) for part in parts)])
    frames = np.cumsum([0, *(len(part) for part in parts)])
    return Frames(
        columns={name: np.concatenate([part.columns[name] for part in parts]) for name in COLUMNS},
        episodes=tuple(record for part in parts for record in part.episodes),
        episode=np.concatenate([part.episode + start for part, start in zip(parts, episodes, strict=False)]),
        step=np.concatenate([part.step for part in parts]),
        first=np.concatenate([part.first + start for part, start in zip(parts, frames, strict=False)]),
    )


def read_frames(folders: Iterable[Path]) -> Frames:
    """Loads every complete shard below ``folders``, in name order.

    Raises FileNotFoundError where there is none and RunError where a shard's columns disagree in length.
    """
    folders = [Path(f) for f in folders]
    shards = sorted(p for f in folders for p in f.glob("shard-*") if not p.name.endswith(".partial"))
    if not shards:
        raise FileNotFoundError(
            f"found no shards below {', '.join(map(str, folders))}; record data first: instructvla-train data record"
        )
    parts: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS}
    episodes: list[EpisodeRecord] = []
    for shard in shards:
        rows = [json.loads(line) for line in (shard / "episodes.jsonl").read_text(encoding="utf-8").splitlines()]
        records = [EpisodeRecord(**{**row, "motion": tuple(row["motion"])}) for row in rows]
        total = sum(record.length for record in records)
        for name in COLUMNS:
            column = np.load(shard / f"{name}.npy", allow_pickle=False)
            if len(column) != total:
                raise RunError(f"{shard}/{name}.npy: found {len(column)} frames, expected {total}; delete the shard")
            parts[name].append(column)
        episodes.extend(records)
    lengths = np.array([record.length for record in episodes])
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    logger.info("%d episodes, %d frames from %d shards", len(episodes), lengths.sum(), len(shards))
    return Frames(
        columns={name: np.concatenate(values) for name, values in parts.items()},
        episodes=tuple(episodes),
        episode=np.repeat(np.arange(len(episodes)), lengths),
        step=np.concatenate([np.arange(n) for n in lengths]),
        first=first,
    )
