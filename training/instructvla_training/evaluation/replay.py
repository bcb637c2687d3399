"""Open-loop check of a checkpoint on recorded episodes: does it want what was done there, better than doing nothing?

The policy gets the recorded image and state of every F-th step and its chunk is compared with what was recorded
after it. The robot does not move, so this is safe, quick, and the last step before it may.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from instructvla_model.manifest import Manifest
from instructvla_model.runtime import PolicyRuntime
from instructvla_model.types import Observation
from instructvla_training.data.chunks import action_chunks
from instructvla_training.data.episode_frames import HELD_OUT_EPISODES
from instructvla_training.data.formats.episode import DataError, Episode, EpisodeDataset
from instructvla_training.data.lint import RATE_TOLERANCE
from instructvla_training.workspace import check_layout

from .open_loop import draw, predict

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Replayed:
    """Means over all steps of all chunks. ``still_*``: the same for a policy that never moves."""

    episodes: tuple[str, ...]
    steps: int
    error_m: float
    still_error_m: float
    error_rad: float
    still_error_rad: float
    gripper_agreement: float  # share of steps on the same side of half open

    @property
    def passed(self) -> bool:
        """Closer to what was done than standing still is."""
        return self.error_m < self.still_error_m

    def lines(self) -> list[str]:
        return [
            f"episodes            {', '.join(self.episodes)} ({self.steps} steps compared)",
            f"displacement error  {1e3 * self.error_m:.2f} mm a step, standing still {1e3 * self.still_error_m:.2f} mm",
            f"rotation error      {self.error_rad:.4f} rad a step, standing still {self.still_error_rad:.4f} rad",
            f"gripper             {self.gripper_agreement:.0%} of the steps on the recorded side of half open",
            f"verdict             {'closer than standing still' if self.passed else 'NO better than standing still'}",
        ]


def held_out_episodes(spoken: np.ndarray, count: int | None = None) -> list[int]:
    """The last episodes with words; as many as fine-tuning keeps apart where there are enough of them for that."""
    numbers = np.flatnonzero(spoken)
    if not len(numbers):
        raise DataError("found no episode with an instruction, expected some to replay; give the episodes their texts")
    return numbers[-(count or HELD_OUT_EPISODES) :].tolist()


def replay(runtime: PolicyRuntime, dataset: EpisodeDataset, numbers: list[int], output: Path | None = None) -> Replayed:
    """Compares on the numbered episodes; into ``output`` go ``replay.json`` and a picture of each episode.

    Raises DataError where the data lacks a view of the policy, has states of another layout than it was trained on, or
    steps of another length.
    """
    check_layout(runtime.manifest, dataset)
    _check_rate_and_robot(runtime.manifest, dataset)
    found, expected, names = [], [], []
    for number in numbers:
        episode = dataset[number]
        names.append(episode.name)
        horizon, views = runtime.manifest.horizon, runtime.manifest.views
        at = np.arange(0, len(episode), horizon)
        seen = [_seen(episode, int(t), views) for t in at]
        chunks = np.stack([predict(runtime, own, episode.instruction, int(t)) for own, t in zip(seen, at, strict=True)])
        recorded, inside = action_chunks(episode.action_TA, at, len(episode) - 1, horizon)
        found.append(chunks[inside])
        expected.append(recorded[inside])
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            title = f"{episode.name}: {episode.instruction}"
            draw(episode.action_TA, at, chunks, title, output / f"episode-{number:04d}.png")
    result = _compared(np.concatenate(found), np.concatenate(expected), names)
    if output is not None:
        (output / "replay.json").write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
    return result


def _check_rate_and_robot(manifest: Manifest, dataset: EpisodeDataset) -> None:
    if abs(dataset.dt_s / manifest.dt_s - 1.0) > RATE_TOLERANCE:
        raise DataError(
            f"{dataset.root}: found steps of {dataset.dt_s:.3f} s, expected the policy's, {manifest.dt_s:.3f} s; "
            f"record or resample at {1 / manifest.dt_s:g} Hz"
        )
    robot = str(manifest.training.get("robot", ""))
    if robot and dataset.robot and robot != dataset.robot:
        logger.warning("%s: found episodes of %s, the checkpoint is of %s", dataset.root, dataset.robot, robot)


def _seen(episode: Episode, step: int, views: Sequence[str]) -> Observation:
    """What the runtime would be given at a recorded step. Raises DataError where a view is missing."""
    return Observation({view: episode.view(view)[step] for view in views}, episode.state_TS[step], 0.0)


def _compared(found_XA: np.ndarray, expected_XA: np.ndarray, names: list[str]) -> Replayed:
    def norm(rows_XA: np.ndarray, columns: slice) -> float:
        return float(np.linalg.norm(rows_XA[:, columns], axis=1).mean())

    xyz, rpy = slice(0, 3), slice(3, 6)
    difference = found_XA - expected_XA
    same = (found_XA[:, 6] > 0.5) == (expected_XA[:, 6] > 0.5)
    return Replayed(
        tuple(names), len(found_XA), norm(difference, xyz), norm(expected_XA, xyz), norm(difference, rpy),
        norm(expected_XA, rpy), float(same.mean()),
    )  # fmt: skip
