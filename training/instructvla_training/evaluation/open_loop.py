"""Chunks that a policy predicts at recorded steps, from the recorded image and state; and their picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from instructvla_model.runtime import PolicyRuntime
from instructvla_model.types import Observation

PANELS = (("Δx (m)", 0), ("Δy (m)", 1), ("Δz (m)", 2), ("gripper opening", 6))


def predict(runtime: PolicyRuntime, seen: Observation, instruction: str, seed: int) -> np.ndarray:
    """The chunk (F, 7) for one recorded step: displacement (m), rotation (rad), gripper opening (0..1)."""
    plan = runtime.latents(seen.images, instruction)
    chunk = runtime.act(seen, plan, seed=seed)
    return np.concatenate([chunk.delta_xyz_m, chunk.delta_rpy_rad, chunk.gripper[:, None]], axis=1)


def draw(action_TA: np.ndarray, at: np.ndarray, chunks_KFA: np.ndarray, title: str, output: Path) -> np.ndarray:
    """Recorded actions as lines, the chunks predicted ``at`` some steps over them -> the PNG's pixels (H, W, 3)."""
    figure, axes = plt.subplots(len(PANELS), 1, figsize=(9, 8), sharex=True, constrained_layout=True)
    for axis, (label, column) in zip(axes, PANELS, strict=True):
        axis.plot(action_TA[:, column], color="#8a94a6", linewidth=3, alpha=0.6, label="recorded")
        for start, chunk in zip(at, chunks_KFA, strict=True):
            steps = np.arange(start, min(start + len(chunk), len(action_TA)))
            label_once = "predicted" if start == at[0] else None
            axis.plot(steps, chunk[: len(steps), column], color="#c2410c", marker=".", linewidth=1.2, label=label_once)
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[0].legend(loc="upper right", fontsize=8)
    axes[-1].set_xlabel("step")
    figure.suptitle(title, fontsize=11)
    figure.savefig(output, dpi=80)
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]
    plt.close(figure)
    return pixels
