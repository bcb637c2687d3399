"""Pictures of a run: its losses over the steps, from the run folder's ``log.jsonl``."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

HIDDEN = {"step", "seconds", "rate"}


def read_log(run_dir: Path) -> dict[str, np.ndarray]:
    """Columns of ``log.jsonl``; a name missing from a row is NaN there.

    A resumed run logs the steps since its last save again: the later row of a step counts.
    """
    path = Path(run_dir) / "log.jsonl"
    if not path.exists():
        raise FileNotFoundError(f"found no {path}, expected the log of a training run; name its run folder")
    rows = {row["step"]: row for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}
    ordered = [rows[step] for step in sorted(rows)]
    names = sorted({name for row in ordered for name in row})
    return {name: np.array([row.get(name, np.nan) for row in ordered]) for name in names}


def plot_log(run_dir: Path, output: Path, title: str) -> None:
    """One small panel per logged quantity, raw and smoothed, written as a PNG."""
    columns = read_log(run_dir)
    names = [name for name in columns if name not in HIDDEN]
    rows = -(-len(names) // 3)
    figure, axes = plt.subplots(rows, 3, figsize=(12, 2.6 * rows), squeeze=False, constrained_layout=True)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    for axis, name in zip(axes.flat, names, strict=False):
        values = columns[name]
        axis.plot(columns["step"], values, color="#b8c4d6", linewidth=1)
        axis.plot(columns["step"], _smooth(values), color="#1f4e8c", linewidth=1.6)
        axis.set_title(name, fontsize=10)
        axis.grid(alpha=0.3)
    minutes = columns["seconds"][-1] / 60
    figure.suptitle(f"{title}: {int(columns['step'][-1])} steps, {minutes:.0f} min", fontsize=12)
    figure.savefig(output, dpi=90)
    plt.close(figure)


def _smooth(values: np.ndarray, width: int = 9) -> np.ndarray:
    if len(values) < width:
        return values
    padded = np.pad(values, (width // 2, width // 2), mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")
