"""Frames made of numbers, so that the stages can be tested without a simulator."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from instructvla_model.config import PolicyConfig
from instructvla_model.presets import preset
from instructvla_sim.catalog import INDEX, NAMES
from instructvla_training.data.shards import NO_OBJECT, EpisodeRecord, Frames, read_frames, write_shard
from instructvla_training.workspace import Workspace


def episode(seed: int, length: int, config: PolicyConfig, source: str = "demonstration") -> EpisodeRecord:
    rng = np.random.default_rng(seed)
    size, side = config.film.image_size, config.film.image_size // config.film.patch_size
    grid = np.full((length, side, side), NO_OBJECT, np.uint8)
    grid[:, 0, 0], grid[:, 1, 1] = INDEX["lemon"], INDEX["bowl"]
    objects = np.zeros((length, len(NAMES), 5), np.float32)
    objects[:, INDEX["lemon"]] = (0.30, -0.10, 0.02, 1.0, 0.3)
    objects[:, INDEX["bowl"]] = (0.25, 0.10, 0.02, 1.0, 0.0)
    objects[:, INDEX["red cube"]] = (0.35, 0.02, 0.02, 1.0, 0.1)
    frames = {
        "image": rng.integers(0, 255, (length, size, size, 3), dtype=np.uint8),
        "grid": grid,
        "objects": objects,
        "state": rng.normal(size=(length, 8)).astype(np.float32),
        "action": rng.normal(size=(length, 7)).astype(np.float32) * 0.01,
        "weight": np.ones(length, np.float32),
    }
    return EpisodeRecord(
        seed=seed, length=length, family="place", target="lemon", place="bowl", success=True, source=source,
        motion=("move forward",) * length, frames=frames,
    )  # fmt: skip


def workspace(root: Path) -> Workspace:
    """A tiny workspace with stills and demonstrations."""
    space, config = Workspace(root, "tiny"), preset("tiny")
    write_shard(space.stills / "shard-0000", [episode(seed, 1, config, "still") for seed in range(4)])
    write_shard(space.demonstrations / "shard-0000", [episode(seed, 6, config) for seed in range(3)])
    return space


def frames(folder, config: PolicyConfig, episodes: int = 3, length: int = 6) -> Frames:
    write_shard(folder / "shard-0000", [episode(seed, length, config) for seed in range(episodes)])
    return read_frames([folder])
