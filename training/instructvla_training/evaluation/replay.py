"""Open-loop check of a checkpoint on recorded episodes: does it want what was done there, better than doing nothing?

The policy gets the recorded image and state of every F-th step and its chunk is compared with what was recorded
after it. The robot does not move, so this is safe, quick, and the last step before it may.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from instructvla_model.runtime import PolicyRuntime
from instructvla_model.types import Observation
from instructvla_training.data.episode_frames import HELD_OUT_EPISODES
from instructvla_training.data.formats.episode import Episode, EpisodeDataset
from instructvla_training.data.windows import action_chunk

PANELS = (("Δx (m)", 0), ("Δy (m)", 1), ("Δz (m)", 2), ("gripper opening", 6))


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


def held_out_episodes(dataset: EpisodeDataset, count: int | None = None) -> list[int]:
    """The last episodes; as many as fine-tuning keeps apart where the dataset is large enough for that."""
    wanted = min(count or HELD_OUT_EPISODES, len(dataset))
    return list(range(len(dataset) - wanted, len(dataset)))


def replay(runtime: PolicyRuntime, dataset: EpisodeDataset, numbers: list[int], output: Path | None = None) -> Replayed:
    """Compares on the numbered episodes; into ``output`` go ``replay.json`` and a picture of each episode."""
    found, expected, names = [], [], []
    for number in numbers:
        episode = dataset[number]
        names.append(episode.name)
        horizon = runtime.manifest.horizon
        at = np.arange(0, len(episode), horizon)
        chunks = np.stack(list(_chunks(runtime, episode, at)))
        recorded, inside = zip(
            *(action_chunk(episode.action_TA, int(t), runtime.manifest.horizon) for t in at), strict=True
        )
        kept = np.stack(inside)
        found.append(chunks[kept])
        expected.append(np.stack(recorded)[kept])
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            picture(episode, at, chunks, output / f"episode-{number:04d}.png")
    result = _compared(np.concatenate(found), np.concatenate(expected), names)
    if output is not None:
        (output / "replay.json").write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
    return result


def picture(episode: Episode, at: np.ndarray, chunks: np.ndarray, path: Path) -> None:
    """Recorded actions as lines and the chunks (K, F, 7) predicted at the steps ``at`` over them, as a PNG."""
    figure, axes = plt.subplots(len(PANELS), 1, figsize=(9, 8), sharex=True, constrained_layout=True)
    for axis, (label, column) in zip(axes, PANELS, strict=True):
        axis.plot(episode.action_TA[:, column], color="#8a94a6", linewidth=3, alpha=0.6, label="recorded")
        for start, chunk in zip(at, chunks, strict=True):
            steps = np.arange(start, min(start + len(chunk), len(episode)))
            label_once = "predicted" if start == 0 else None
            axis.plot(steps, chunk[: len(steps), column], color="#c2410c", marker=".", linewidth=1.2, label=label_once)
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[0].legend(loc="upper right", fontsize=8)
    axes[-1].set_xlabel("step")
    figure.suptitle(f"{episode.name}: {episode.instruction}", fontsize=11)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _chunks(runtime: PolicyRuntime, episode: Episode, at: np.ndarray) -> Iterator[np.ndarray]:
    """The policy's chunks (F, 7) at the given steps."""
    for t in at:
        images = {view: images[int(t)] for view, images in episode.images.items() if view in runtime.manifest.views}
        for view in runtime.manifest.views:
            images.setdefault(view, np.zeros_like(images["primary"]))
        plan = runtime.latents(images["primary"], episode.instruction)
        chunk = runtime.act(Observation(images, episode.state_TS[t], 0.0), plan, seed=int(t))
        yield np.concatenate([chunk.delta_xyz_m, chunk.delta_rpy_rad, chunk.gripper[:, None]], axis=1)


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
